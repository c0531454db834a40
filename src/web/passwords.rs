//! Checks passwords against bcrypt hashes, which is slow on purpose: aside from the requests, one at a time, once for each that is right.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Mutex as Turn;

use super::access::Users;

/// How many right passwords are remembered; more only while users are changed.
const REMEMBERED: usize = 64;

/// What was right before, so that a scrape every few seconds costs nothing. Neither password nor hash is kept, but 128 bits of both
/// under keys that only this process has.
#[derive(Default)]
pub(super) struct Passwords {
    keys: [RandomState; 2],
    right: Mutex<HashSet<[u64; 2]>>,
    /// Guesses take one core at most.
    turn: Turn<()>,
}

impl Passwords {
    /// Whether the header `Authorization` names one of the users with the right password.
    pub async fn admit(&self, users: &Users, authorization: Option<&str>) -> bool {
        let Some((user, password)) = authorization.and_then(credentials) else { return false };
        let known = users.get(&user);
        // for a user that there is not the time is spent all the same: it does not tell who is one
        let Some(hash) = known.or_else(|| users.values().next()) else { return false };
        let mark = self.keys.each_ref().map(|key| key.hash_one((&user, hash, &password)));
        if self.right().contains(&mark) {
            return true;
        }
        let _turn = self.turn.lock().await;
        let hash = hash.0.clone();
        let checked = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await;
        let is_right = known.is_some() && matches!(checked, Ok(Ok(true)));
        if is_right {
            let mut right = self.right();
            if right.len() >= REMEMBERED {
                right.clear();
            }
            right.insert(mark);
        }
        is_right
    }

    fn right(&self) -> std::sync::MutexGuard<'_, HashSet<[u64; 2]>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// User and password of `Basic BASE64(USER:PASSWORD)`.
fn credentials(authorization: &str) -> Option<(String, String)> {
    let (scheme, token) = authorization.split_once(' ')?;
    let text = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':').filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some((user.to_owned(), password.to_owned()))
}
