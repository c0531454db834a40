//! Runs file work that may block on its own thread: a FIFO, a dead NFS server or FUSE daemon delays only one sweep, by
//! one deadline.
//!
//! The thread starts in the agent's own network namespace and stays there. If it blocks, it keeps no other namespace
//! alive.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

/// How long a sweep waits for one piece of file work. Listing 10 000 processes takes 30 ms.
const DEADLINE: Duration = Duration::from_secs(3);

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs one piece of work after the other. The caller waits only until the deadline.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Option<Sender<Job>>,
    /// Receives the result of work that missed its deadline.
    hung: Option<Receiver<()>>,
    deadline: Duration,
}

impl Default for Worker {
    fn default() -> Self {
        Self { jobs: None, hung: None, deadline: DEADLINE }
    }
}

impl Worker {
    /// Starts the thread if there is none yet. The calling thread must not have entered another namespace.
    pub fn start(&mut self) -> io::Result<()> {
        if self.jobs.is_none() {
            let (jobs, work) = channel::<Job>();
            thread::Builder::new().name("files".to_owned()).spawn(move || work.iter().for_each(|job| job()))?;
            self.jobs = Some(jobs);
        }
        Ok(())
    }

    /// Whether there is a thread.
    pub fn is_started(&self) -> bool {
        self.jobs.is_some()
    }

    /// Runs `work` on the thread and waits for what it returns, until the deadline.
    ///
    /// It fails at once while earlier work still blocks.
    pub fn run<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        if let Some(hung) = &self.hung {
            match hung.try_recv() {
                Err(TryRecvError::Empty) => return Err(timed_out("an earlier attempt still hangs")),
                Ok(()) => self.hung = None,
                Err(TryRecvError::Disconnected) => (self.hung, self.jobs) = (None, None),
            }
        }
        self.start()?;
        let (answer, result) = channel();
        let (done, is_done) = channel();
        let job: Job = Box::new(move || {
            // nobody receives a result after the deadline
            let _ = answer.send(work());
            let _ = done.send(());
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        match result.recv_timeout(self.deadline) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => {
                self.hung = Some(is_done);
                Err(timed_out("it did not answer in time"))
            }
            // the work panicked, and the thread ended with it
            Err(RecvTimeoutError::Disconnected) => {
                self.jobs = None;
                Err(io::Error::other(if sent { "the thread that reads it panicked" } else { "the thread ended" }))
            }
        }
    }
}

fn timed_out(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_is_waited_for_once_and_the_thread_serves_again_when_it_ends() {
        let mut worker = Worker { deadline: Duration::from_mins(1), ..Worker::default() };
        assert_eq!(worker.run(|| 1).unwrap(), 1);
        worker.deadline = Duration::from_millis(20);
        let (release, released) = channel::<()>();
        let (ended, has_ended) = channel::<()>();
        let hang = move || {
            let _ = released.recv();
            drop(ended);
        };
        assert_eq!(worker.run(hang).unwrap_err().to_string(), "it did not answer in time");
        assert_eq!(worker.run(|| 2).unwrap_err().to_string(), "an earlier attempt still hangs");
        release.send(()).unwrap();
        assert!(has_ended.recv().is_err());
        // The work has ended. Its answer follows at once, but a busy machine may be slow.
        worker.deadline = Duration::from_mins(1);
        let again = (0..10_000).find_map(|_| {
            thread::sleep(Duration::from_millis(1));
            worker.run(|| 3).ok()
        });
        assert_eq!(again, Some(3));
    }

    #[test]
    fn work_that_panics_is_an_error_and_the_next_has_a_new_thread() {
        let mut worker = Worker { deadline: Duration::from_mins(1), ..Worker::default() };
        let error = worker.run(|| assert!(std::hint::black_box(false), "as planned")).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(worker.run(|| 4).unwrap(), 4);
    }
}
