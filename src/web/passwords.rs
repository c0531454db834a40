//! Checks passwords against bcrypt hashes, which is slow on purpose: a right one costs that once, and wrong ones are
//! limited.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::web_config::{Hash, Rules};

/// How many right passwords are stored; more only while users are changed.
const STORED_RIGHT: usize = 256;
/// How many wrong passwords are stored: the same one is not checked twice.
const STORED_WRONG: usize = 1024;
/// How many addresses are stored from which wrong passwords came.
const STORED_GUESSERS: usize = 1024;
/// How long such an address is under suspicion.
const SUSPICION: Duration = Duration::from_mins(1);
/// This many wrong ones in a row are a slip of the hand.
const SLIPS: u32 = 5;
/// The shortest time between two checks for an address from which more came.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(1);
/// How many wait for one lane.
const QUEUE: usize = 16;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// It was not checked: too many wrong ones came, from this address or from everywhere.
    Busy,
}

/// Stands for a user, hash and password. Neither is stored, but 128 bits of them under keys that only this process has.
type Mark = [u64; 2];

/// What was right or wrong before, and who guesses.
#[derive(Default)]
pub(super) struct Passwords {
    keys: [RandomState; 2],
    memory: Arc<Mutex<Memory>>,
    /// Guesses take one core at most.
    guessers: Lane,
    /// Addresses without a recent wrong password do not wait behind those with one.
    others: Lane,
}

#[derive(Default)]
struct Memory {
    right: HashSet<Mark>,
    wrong: HashSet<Mark>,
    /// The order in which wrong ones came.
    order: VecDeque<Mark>,
    /// Addresses from which wrong ones came.
    guessers: HashMap<IpAddr, Guesser>,
    /// Addresses for which a first check is under way.
    first: HashSet<IpAddr>,
}

struct Guesser {
    /// When the last check began or ended.
    last: Instant,
    wrong: u32,
}

/// One check at a time, and a bounded queue.
struct Lane {
    turn: Arc<Semaphore>,
    queue: Semaphore,
}

impl Default for Lane {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), queue: Semaphore::new(QUEUE) }
    }
}

impl Lane {
    /// The turn to check one password; `None` if it does not come within a second.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let _waiting = self.queue.try_acquire().ok()?;
        tokio::time::timeout(TURN, self.turn.clone().acquire_owned()).await.ok()?.ok()
    }
}

impl Passwords {
    /// Whether the header `Authorization` names one of the users with the right password.
    pub async fn check(&self, rules: &Rules, authorization: Option<&str>, from: IpAddr) -> Verdict {
        let Some((user, password)) = authorization.and_then(credentials) else { return Verdict::Wrong };
        let known = rules.users.get(&user);
        // an unknown user costs as much time as the most expensive known one: the time does not show who is one
        let cost = rules.users.values().map(|hash| hash.cost).max().unwrap_or(bcrypt::DEFAULT_COST);
        let hash = known.map_or_else(|| nobodys_hash(cost), |hash: &Hash| hash.text.clone());
        let mark = self.keys.each_ref().map(|key| key.hash_one((&user, &hash, &password)));
        if let Some(verdict) = lock(&self.memory).stored(mark) {
            return verdict;
        }
        let suspicion = lock(&self.memory).suspicion(from, Instant::now());
        let (lane, first) = match suspicion {
            Suspicion::None => (&self.others, Some(FirstCheck { from, memory: self.memory.clone() })),
            Suspicion::Pause => return Verdict::Busy,
            Suspicion::Guesser => (&self.guessers, None),
        };
        let Some(turn) = lane.turn().await else { return Verdict::Busy };
        // the same one may have been checked in the meantime
        if let Some(verdict) = lock(&self.memory).stored(mark) {
            return verdict;
        }
        let known_cost = known.map_or(cost, |hash| hash.cost);
        let is_known = known.is_some();
        let memory = self.memory.clone();
        // it goes on, and keeps its turn, even if the client goes away
        let checked = tokio::task::spawn_blocking(move || {
            let is_right = is_known & bcrypt::verify(&password, &hash).is_ok_and(|right| right);
            // the sum of 2^known … 2^(cost-1) is what is missing to 2^cost
            for missing in known_cost..cost {
                let _ = bcrypt::verify(&password, &nobodys_hash(missing));
            }
            lock(&memory).store(mark, is_right, from);
            drop((turn, first));
            is_right
        });
        if checked.await.unwrap_or(false) { Verdict::Right } else { Verdict::Wrong }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The check of the first password from an address; further ones wait with the guessers' until it has ended.
struct FirstCheck {
    from: IpAddr,
    memory: Arc<Mutex<Memory>>,
}

impl Drop for FirstCheck {
    fn drop(&mut self) {
        lock(&self.memory).first.remove(&self.from);
    }
}

enum Suspicion {
    /// No wrong password came from this address of late.
    None,
    /// One did.
    Guesser,
    /// One did a moment ago.
    Pause,
}

impl Memory {
    fn stored(&self, mark: Mark) -> Option<Verdict> {
        if self.right.contains(&mark) {
            Some(Verdict::Right)
        } else {
            self.wrong.contains(&mark).then_some(Verdict::Wrong)
        }
    }

    /// How the next check for this address is treated.
    fn suspicion(&mut self, from: IpAddr, now: Instant) -> Suspicion {
        let Some(guesser) = self.guessers.get_mut(&from) else {
            return if self.first.insert(from) { Suspicion::None } else { Suspicion::Guesser };
        };
        let since = now.saturating_duration_since(guesser.last);
        if since > SUSPICION {
            self.guessers.remove(&from);
            self.suspicion(from, now)
        } else if guesser.wrong >= SLIPS && since < PAUSE {
            Suspicion::Pause
        } else {
            guesser.last = now;
            Suspicion::Guesser
        }
    }

    fn store(&mut self, mark: Mark, is_right: bool, from: IpAddr) {
        if is_right {
            self.guessers.remove(&from);
            if self.right.len() >= STORED_RIGHT {
                self.right.clear();
            }
            self.right.insert(mark);
            return;
        }
        if self.wrong.insert(mark) {
            self.order.push_back(mark);
        }
        if self.order.len() > STORED_WRONG
            && let Some(oldest) = self.order.pop_front()
        {
            self.wrong.remove(&oldest);
        }
        if self.guessers.len() >= STORED_GUESSERS
            && !self.guessers.contains_key(&from)
            && let Some(oldest) =
                self.guessers.iter().min_by_key(|(_, guesser)| guesser.last).map(|(&address, _)| address)
        {
            self.guessers.remove(&oldest);
        }
        let guesser = self.guessers.entry(from).or_insert(Guesser { last: Instant::now(), wrong: 0 });
        guesser.last = Instant::now();
        guesser.wrong = guesser.wrong.saturating_add(1);
    }
}

/// A hash of this cost that no password has.
fn nobodys_hash(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(53))
}

/// User and password of `Basic BASE64(USER:PASSWORD)`.
fn credentials(authorization: &str) -> Option<(String, String)> {
    let (scheme, token) = authorization.split_once(' ')?;
    let text = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':').filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "192.0.2.1";
    const AWAY: &str = "192.0.2.2";

    fn rules(cost: u32) -> Rules {
        let hash = |password: &str, cost| Hash { text: bcrypt::hash(password, cost).unwrap(), cost };
        let users = [("alice".to_owned(), hash("right", cost)), ("bob".to_owned(), hash("other", 4))].into();
        Rules { tls: None, certificate_required: false, users, files: Vec::new() }
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    async fn check(passwords: &Passwords, rules: &Rules, user: &str, password: &str, from: &str) -> Verdict {
        passwords.check(rules, Some(&basic(user, password)), from.parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_right_password_passes_however_many_wrong_ones_come() {
        let (passwords, rules) = (Passwords::default(), rules(4));
        assert_eq!(check(&passwords, &rules, "alice", "right", HOME).await, Verdict::Right);
        for guess in 0..2 * SLIPS {
            let verdict = check(&passwords, &rules, "alice", &guess.to_string(), HOME).await;
            assert_eq!(verdict, if guess < SLIPS { Verdict::Wrong } else { Verdict::Busy }, "guess {guess}");
        }
        assert_eq!(check(&passwords, &rules, "alice", "right", HOME).await, Verdict::Right, "it is stored");
        assert_eq!(check(&passwords, &rules, "bob", "other", AWAY).await, Verdict::Right, "nobody guesses there");
    }

    #[tokio::test]
    async fn a_first_check_does_not_queue_behind_guessers() {
        let (passwords, rules) = (Passwords::default(), rules(4));
        // the check of a guess never ends, and others wait behind it
        let _checked = passwords.guessers.turn.acquire().await.unwrap();
        let _waiting = passwords.guessers.queue.acquire_many(u32::try_from(QUEUE).unwrap()).await.unwrap();
        assert_eq!(check(&passwords, &rules, "alice", "right", AWAY).await, Verdict::Right);
    }

    #[tokio::test]
    async fn who_is_no_user_and_what_is_no_password_is_wrong() {
        let (passwords, rules) = (Passwords::default(), rules(4));
        for authorization in [None, Some("Bearer x"), Some("Basic ?"), Some("Basic YWxpY2U="), Some("")] {
            let verdict = passwords.check(&rules, authorization, HOME.parse().unwrap()).await;
            assert_eq!(verdict, Verdict::Wrong, "{authorization:?}");
        }
        assert_eq!(check(&passwords, &rules, "carol", "right", HOME).await, Verdict::Wrong);
        assert_eq!(check(&passwords, &rules, "carol", "right", HOME).await, Verdict::Wrong, "it is stored");
    }

    #[test]
    fn nobodys_hash_is_checked_like_any_other() {
        assert!(!bcrypt::verify("", &nobodys_hash(4)).unwrap(), "a hash that cannot be read would cost no time");
    }

    #[test]
    fn what_is_stored_is_bounded() {
        let mut memory = Memory::default();
        for number in 0..2000_u32 {
            memory.store([number.into(), 0], false, IpAddr::from(number.to_be_bytes()));
            memory.store([number.into(), 1], true, IpAddr::from([0, 0, 0, 0]));
        }
        assert_eq!((memory.wrong.len(), memory.order.len()), (STORED_WRONG, STORED_WRONG));
        assert!(memory.guessers.len() <= STORED_GUESSERS && memory.right.len() <= STORED_RIGHT);
        assert!(memory.wrong.contains(&[1999, 0]) && !memory.wrong.contains(&[0, 0]));
    }
}
