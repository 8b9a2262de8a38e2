//! Decides which tokens the API server reviews: none that it reviewed a moment ago, and a limited number from an
//! address with refused tokens.

use crate::link::RefusedToken as Refused;
use ring::digest::{SHA256, digest};
use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long an answer counts: an agent opens its streams together.
const FRESH: Duration = Duration::from_secs(10);
/// Answers that are kept.
const ANSWERS: usize = 4096;
/// Questions about tokens that turn out to be refused, at once and then in each [`REFILL`], by address.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(1);
/// Addresses with refused tokens.
const ADDRESSES: usize = 4096;

/// A token, without the token itself.
pub(super) type TokenDigest = [u8; 32];

pub(super) fn digest_of(token: &str) -> TokenDigest {
    let mut sum = TokenDigest::default();
    sum.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    sum
}

/// How often the API server was asked, and spared.
#[derive(Debug, Default)]
pub struct ReviewTally {
    /// Questions.
    pub asked: AtomicU64,
    /// Tokens that were refused without a question, because many of their address were.
    pub limited: AtomicU64,
}

type Answer = Result<Option<String>, Refused>;

/// The next step for a token.
#[derive(Debug)]
pub(super) enum Ask {
    /// Nothing: the answer is known.
    Known(Answer),
    /// The API server is asked.
    Review,
    /// It is not asked.
    TooMany,
}

#[derive(Debug)]
pub(super) struct Reviews {
    inner: Mutex<Inner>,
    tally: Arc<ReviewTally>,
}

#[derive(Debug, Default)]
struct Inner {
    answers: HashMap<TokenDigest, (Instant, Answer)>,
    order: VecDeque<TokenDigest>,
    /// Reviews beyond the limit by address, with their time.
    spent: HashMap<IpAddr, (u32, Instant)>,
}

impl Reviews {
    pub(super) fn new(tally: Arc<ReviewTally>) -> Self {
        Self { inner: Mutex::default(), tally }
    }

    /// The next step for a token now. A review counts against its address until it succeeds.
    pub(super) fn begin(&self, token: TokenDigest, from: Option<IpAddr>, now: Instant) -> Ask {
        let mut inner = self.lock();
        if let Some((at, answer)) = inner.answers.get(&token)
            && now.saturating_duration_since(*at) < FRESH
        {
            return Ask::Known(answer.clone());
        }
        if let Some(from) = from
            && !inner.spend(from, now)
        {
            self.tally.limited.fetch_add(1, Ordering::Relaxed);
            return Ask::TooMany;
        }
        self.tally.asked.fetch_add(1, Ordering::Relaxed);
        Ask::Review
    }

    /// Takes the API server's answer.
    pub(super) fn end(&self, token: TokenDigest, from: Option<IpAddr>, answer: &Answer, now: Instant) {
        let mut inner = self.lock();
        // A failure of the API server is not the client's fault, and may be brief.
        let is_fault = matches!(answer, Err(Refused::Unauthenticated(_) | Refused::PermissionDenied(_)));
        if let Some((spent, _)) = from.filter(|_| !is_fault).and_then(|from| inner.spent.get_mut(&from)) {
            *spent = spent.saturating_sub(1);
        }
        if !matches!(answer, Err(Refused::Unavailable(_))) {
            inner.keep(token, answer.clone(), now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // An answer and its place in the order are put in without anything between.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes one question of an address; `false` if it has none left.
    fn spend(&mut self, from: IpAddr, now: Instant) -> bool {
        let refilled = |(spent, at): &(u32, Instant)| {
            let since = now.saturating_duration_since(*at).as_secs() / REFILL.as_secs();
            spent.saturating_sub(u32::try_from(since).unwrap_or(u32::MAX))
        };
        if self.spent.len() >= ADDRESSES && !self.spent.contains_key(&from) {
            self.spent.retain(|_, known| refilled(known) > 0);
            if self.spent.len() >= ADDRESSES {
                // With so many refused addresses, an address without refusals is not limited.
                return true;
            }
        }
        let known = self.spent.entry(from).or_insert((0, now));
        let spent = refilled(known);
        if spent >= BURST {
            return false;
        }
        // Refills of parts of a period are lost, which only lowers the rate.
        *known = (spent + 1, now);
        true
    }

    fn keep(&mut self, token: TokenDigest, answer: Answer, now: Instant) {
        if self.answers.insert(token, (now, answer)).is_none() {
            self.order.push_back(token);
        }
        while self.order.len() > ANSWERS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.answers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Answer {
        Err(Refused::Unauthenticated("it is not valid".into()))
    }

    #[test]
    fn bogus_tokens_of_an_address_cost_ten_questions_and_then_one_a_second() {
        let (reviews, start) = (Reviews::new(Arc::default()), Instant::now());
        let (hostile, honest) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        let mut asked = 0;
        // Eight threads, 549 tokens a second, for ten seconds.
        for n in 0..5490u32 {
            let now = start + Duration::from_millis(u64::from(n) * 10_000 / 5490);
            let token = digest_of(&n.to_string());
            if let Ask::Review = reviews.begin(token, hostile, now) {
                asked += 1;
                reviews.end(token, hostile, &refused(), now);
            }
        }
        assert!((10..=21).contains(&asked), "{asked}");
        assert!(reviews.tally.limited.load(Ordering::Relaxed) > 5000);
        let now = start + Duration::from_secs(10);
        assert!(matches!(reviews.begin(digest_of("good"), honest, now), Ask::Review), "others are looked at");
        let inner = reviews.lock();
        assert!(inner.answers.len() <= ANSWERS && inner.spent.len() <= 2);
    }

    #[test]
    fn the_same_token_is_looked_at_once_in_ten_seconds_whether_good_or_not() {
        let (reviews, start) = (Reviews::new(Arc::default()), Instant::now());
        for (token, answer) in [("bad", refused()), ("good", Ok(Some("node-a".to_owned())))] {
            let token = digest_of(token);
            assert!(matches!(reviews.begin(token, None, start), Ask::Review));
            reviews.end(token, None, &answer, start);
            let later = start + FRESH - Duration::from_millis(1);
            let Ask::Known(known) = reviews.begin(token, None, later) else { panic!("it is known") };
            assert_eq!(known.ok(), answer.ok());
            assert!(matches!(reviews.begin(token, None, start + FRESH), Ask::Review));
        }
    }

    #[test]
    fn good_tokens_cost_their_address_nothing_and_a_silent_api_server_neither() {
        let (reviews, now) = (Reviews::new(Arc::default()), Instant::now());
        let from = Some(IpAddr::from([10, 0, 0, 1]));
        for n in 0..1000 {
            let token = digest_of(&n.to_string());
            assert!(matches!(reviews.begin(token, from, now), Ask::Review), "{n}");
            let silent = Err(Refused::Unavailable("no answer".into()));
            reviews.end(token, from, &if n % 2 == 0 { Ok(None) } else { silent }, now);
        }
    }

    #[test]
    fn the_memory_for_refused_tokens_is_bounded() {
        let (reviews, now) = (Reviews::new(Arc::default()), Instant::now());
        for n in 0..3 * ADDRESSES as u32 {
            let (token, from) = (digest_of(&n.to_string()), Some(IpAddr::from(n.to_be_bytes())));
            if let Ask::Review = reviews.begin(token, from, now) {
                reviews.end(token, from, &refused(), now);
            }
        }
        let inner = reviews.lock();
        assert!(inner.answers.len() == ANSWERS && inner.order.len() == ANSWERS && inner.spent.len() <= ADDRESSES);
    }
}
