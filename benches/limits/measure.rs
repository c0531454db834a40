//! CPU time of a piece of work or of a program, and medians.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use rustix::time::{ClockId, clock_gettime};

/// CPU time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub total: f64,
    /// The part in user space. The kernel samples this split at its tick, so only a mean of many runs is meaningful.
    pub user: f64,
}

/// Runs `work` on a new thread. Returns the CPU time of this process meanwhile, and the result of `work`.
pub fn cost<T: Send>(work: impl FnOnce() -> T + Send) -> (Cpu, T) {
    let before = cpu_clock();
    let measured = || {
        let given = work();
        (share(usage(UsageWho::RUSAGE_THREAD)), given)
    };
    let (user, given) =
        thread::scope(|scope| scope.spawn(measured).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let total = cpu_clock() - before;
    (Cpu { total, user: total * user }, given)
}

/// CPU time of this process so far, seconds.
pub fn cpu_clock() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).expect("a part of a second")).as_secs_f64()
}

/// The CPU time of a program from start to end. Its output is discarded, and it must succeed.
pub fn cost_of(command: &mut Command) -> Cpu {
    let before = usage(UsageWho::RUSAGE_CHILDREN);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("the program starts");
    assert!(status.success(), "{command:?}: {status}");
    let after = usage(UsageWho::RUSAGE_CHILDREN);
    Cpu { total: after.0 + after.1 - before.0 - before.1, user: after.0 - before.0 }
}

/// User and system time, seconds.
fn usage(who: UsageWho) -> (f64, f64) {
    let usage: Usage = getrusage(who).expect("the kernel reports our usage");
    let seconds = |time: nix::sys::time::TimeVal| {
        #[expect(clippy::cast_precision_loss, reason = "seconds and microseconds of a process are far below 2^52")]
        let seconds = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds
    };
    (seconds(usage.user_time()), seconds(usage.system_time()))
}

fn share((user, system): (f64, f64)) -> f64 {
    if user + system > 0.0 { user / (user + system) } else { 0.0 }
}

/// The runs of one measurement.
#[derive(Clone, Debug, Default)]
pub struct Runs(Vec<Cpu>);

impl Runs {
    /// A single run.
    pub fn of(cpu: Cpu) -> Self {
        Self(vec![cpu])
    }

    pub fn add(&mut self, cpu: Cpu) {
        self.0.push(cpu);
    }

    /// The median of the totals, seconds.
    pub fn median(&self) -> f64 {
        median(self.0.iter().map(|cpu| cpu.total))
    }

    /// The median of the ratios to the runs of another measurement in the same rounds.
    pub fn ratio(&self, to: &Self) -> f64 {
        assert_eq!(self.0.len(), to.0.len(), "runs come in rounds");
        median(self.0.iter().zip(&to.0).map(|(ours, theirs)| ours.total / theirs.total))
    }

    /// The mean part in user space.
    pub fn user_share(&self) -> f64 {
        let sum = |of: fn(&Cpu) -> f64| self.0.iter().map(of).sum::<f64>();
        sum(|cpu| cpu.user) / sum(|cpu| cpu.total)
    }
}

/// The median: the middle value, or the mean of the two middle values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    assert!(!values.is_empty(), "something was measured");
    values.sort_by(f64::total_cmp);
    let at = values.len() / 2;
    if values.len() % 2 == 1 { values[at] } else { f64::midpoint(values[at - 1], values[at]) }
}
