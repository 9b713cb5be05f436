//! How fast a client may go: token buckets for one connection in each topic class, for the connection as a whole, and
//! for all connections of a user and of an address together.
//!
//! A bucket is the generic cell rate algorithm (ITU-T I.371): one instant, the *theoretical arrival time*, which moves
//! on by the price of each message; who is ahead of the clock by more than the burst has to wait. Waiting is the
//! caller's business, which stops reading meanwhile. Pure: the time, nanoseconds on any clock, is an argument.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::ClassTag;
use crate::config::{Rate, RateConfig};

/// The clock of a bucket: nanoseconds.
type Nanos = u64;

/// One rate's debts in messages and in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    messages: Nanos,
    bytes: Nanos,
}

/// The same for several connections.
#[derive(Debug, Default)]
pub struct SharedBucket {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// What a publish of that many bytes costs at a rate.
struct Price {
    messages: Option<Nanos>,
    bytes: Option<Nanos>,
    burst: Nanos,
}

impl Price {
    fn of(rate: &Rate, bytes: usize) -> Self {
        const SECOND: Nanos = 1_000_000_000;
        // No packet has so many bytes that this would overflow.
        let cost = |units: usize, per_second: usize| SECOND.saturating_mul(units as Nanos) / per_second as Nanos;
        Self {
            messages: rate.messages.map(|most| cost(1, most)),
            bytes: rate.bytes.map(|most| cost(bytes, most)),
            burst: Nanos::try_from(rate.burst.as_nanos()).unwrap_or(Nanos::MAX / 4),
        }
    }

    fn wait(&self, debt: Nanos, cost: Option<Nanos>, now: Nanos) -> Nanos {
        cost.map_or(0, |_| debt.saturating_sub(now).saturating_sub(self.burst))
    }
}

fn charged(debt: Nanos, cost: Option<Nanos>, now: Nanos) -> Nanos {
    cost.map_or(debt, |cost| debt.max(now).saturating_add(cost))
}

impl Bucket {
    fn wait(&self, price: &Price, now: Nanos) -> Nanos {
        price.wait(self.messages, price.messages, now).max(price.wait(self.bytes, price.bytes, now))
    }

    fn charge(&mut self, price: &Price, now: Nanos) {
        self.messages = charged(self.messages, price.messages, now);
        self.bytes = charged(self.bytes, price.bytes, now);
    }
}

impl SharedBucket {
    fn owes(&self, now: Nanos) -> bool {
        self.messages.load(Ordering::Relaxed).max(self.bytes.load(Ordering::Relaxed)) > now
    }

    fn wait(&self, price: &Price, now: Nanos) -> Nanos {
        let load = |debt: &AtomicU64| debt.load(Ordering::Relaxed);
        price.wait(load(&self.messages), price.messages, now).max(price.wait(load(&self.bytes), price.bytes, now))
    }

    fn charge(&self, price: &Price, now: Nanos) {
        for (debt, cost) in [(&self.messages, price.messages), (&self.bytes, price.bytes)] {
            if cost.is_some() {
                debt.update(Ordering::Relaxed, Ordering::Relaxed, |debt| charged(debt, cost, now));
            }
        }
    }
}

/// The buckets that one connection draws from.
pub struct Throttle {
    rates: Arc<RateConfig>,
    connection: Bucket,
    user: Option<Arc<SharedBucket>>,
    address: Option<Arc<SharedBucket>>,
    classes: ClassBuckets,
    told: Bucket,
}

/// Refusals of one connection that its user is told of.
const TOLD: Rate = Rate { messages: Some(10), bytes: None, burst: Duration::from_secs(10) };

/// Classes of one connection whose debts are remembered; the one that is paid off first makes room.
const CLASSES: usize = 16;

impl Throttle {
    /// Whether a user is told of one more refusal.
    pub fn tells(&mut self, now: Nanos) -> bool {
        let price = Price::of(&TOLD, 0);
        let tells = self.told.wait(&price, now) == 0;
        if tells {
            self.told.charge(&price, now);
        }
        tells
    }

    /// Takes something that has happened already from all buckets but those of classes. Says how long nothing more may
    /// happen.
    pub fn charge(&mut self, bytes: usize, now: Nanos) -> Duration {
        let Self { rates, connection, user, address, .. } = self;
        let price = |rate: &Rate| Price::of(rate, bytes);
        let own = price(&rates.connection);
        connection.charge(&own, now);
        let mut wait = connection.wait(&own, now);
        for (bucket, price) in [(&*user, price(&rates.user)), (&*address, price(&rates.address))] {
            let Some(bucket) = bucket else { continue };
            bucket.charge(&price, now);
            wait = wait.max(bucket.wait(&price, now));
        }
        Duration::from_nanos(wait)
    }

    /// Takes one packet of that many bytes from all buckets that it concerns, or from none.
    ///
    /// # Errors
    /// How long to wait first.
    pub fn admit(&mut self, class: Option<(ClassTag, Rate)>, bytes: usize, now: Nanos) -> Result<(), Duration> {
        let Self { rates, connection, user, address, classes, .. } = self;
        let price = |rate: &Rate| Price::of(rate, bytes);
        let own = price(&rates.connection);
        let user = user.as_deref().map(|bucket| (bucket, price(&rates.user)));
        let address = address.as_deref().map(|bucket| (bucket, price(&rates.address)));
        let of_class = class.filter(|(_, rate)| rate.is_bounded());
        let of_class = of_class.map(|(class, rate)| (of_the_class(classes, class, now), price(&rate)));
        let mut wait = connection.wait(&own, now);
        for (bucket, price) in user.iter().chain(&address) {
            wait = wait.max(bucket.wait(price, now));
        }
        if let Some((bucket, price)) = &of_class {
            wait = wait.max(bucket.wait(price, now));
        }
        if wait > 0 {
            return Err(Duration::from_nanos(wait));
        }
        connection.charge(&own, now);
        user.iter().chain(&address).for_each(|(bucket, price)| bucket.charge(price, now));
        if let Some((bucket, price)) = of_class {
            bucket.charge(&price, now);
        }
        Ok(())
    }
}

impl Throttle {
    /// How long it takes until a class may have something again.
    pub fn owes(&self, class: ClassTag, rate: &Rate, now: Nanos) -> Duration {
        let price = Price::of(rate, 0);
        let debt = self.classes.iter().find(|(known, _)| *known == class);
        Duration::from_nanos(debt.map_or(0, |(_, bucket)| bucket.wait(&price, now)))
    }

    /// Takes so many messages of a class that have been made already.
    pub fn charge_class(&mut self, class: ClassTag, rate: &Rate, messages: usize, now: Nanos) {
        let price = Price::of(rate, 0);
        let bucket = of_the_class(&mut self.classes, class, now);
        (0..messages).for_each(|_| bucket.charge(&price, now));
    }
}

type ClassBuckets = SmallVec<[(ClassTag, Bucket); 2]>;

/// The bucket of a class, made if it is not there.
fn of_the_class(classes: &mut ClassBuckets, class: ClassTag, now: Nanos) -> &mut Bucket {
    let known = classes.iter().position(|(known, _)| *known == class);
    let at = known.unwrap_or_else(|| {
        if classes.len() >= CLASSES {
            classes.retain(|(_, bucket)| bucket.messages.max(bucket.bytes) > now);
        }
        if classes.len() >= CLASSES {
            let debt = |(_, bucket): &(ClassTag, Bucket)| bucket.messages.max(bucket.bytes);
            let least = (0..CLASSES).min_by_key(|at| debt(&classes[*at])).unwrap_or(0);
            classes.swap_remove(least);
        }
        classes.push((class, Bucket::default()));
        classes.len() - 1
    });
    &mut classes[at].1
}

/// The buckets that connections have in common: for as long as one of them is there or something is owed, so that who
/// comes back does not come back with a full bucket.
pub struct Throttles {
    rates: parking_lot::RwLock<Arc<RateConfig>>,
    users: Mutex<Buckets<Box<str>>>,
    addresses: Mutex<Buckets<IpAddr>>,
}

struct Buckets<K> {
    of: HashMap<K, Arc<SharedBucket>>,
    /// Of how many there may be before those that nobody uses and nobody owes are swept out.
    sweep_at: usize,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { of: HashMap::new(), sweep_at: LEAST }
    }
}

const LEAST: usize = 64;

impl<K: Hash + Eq> Buckets<K> {
    fn get(&mut self, key: K, now: Nanos) -> Arc<SharedBucket> {
        if self.of.len() >= self.sweep_at {
            self.of.retain(|_, bucket| Arc::strong_count(bucket) > 1 || bucket.owes(now));
            self.of.shrink_to(2 * self.of.len());
            self.sweep_at = LEAST.max(2 * self.of.len());
        }
        Arc::clone(self.of.entry(key).or_default())
    }
}

impl Throttles {
    pub fn new(rates: RateConfig) -> Self {
        Self { rates: parking_lot::RwLock::new(Arc::new(rates)), users: Mutex::default(), addresses: Mutex::default() }
    }

    /// Other rates, for connections that begin to send from now on.
    pub fn replace(&self, rates: RateConfig) {
        *self.rates.write() = Arc::new(rates);
    }

    /// How long a packet may wait before it is refused.
    pub fn patience(&self) -> Duration {
        self.rates.read().wait
    }

    /// The buckets of a connection of that user (the part before `~`) from that address, if it is known.
    pub fn of(&self, user: &str, address: Option<IpAddr>, now: Nanos) -> Throttle {
        let rates = Arc::clone(&self.rates.read());
        Throttle {
            user: rates.user.is_bounded().then(|| self.users.lock().get(user.into(), now)),
            address: address
                .filter(|_| rates.address.is_bounded())
                .map(|address| self.addresses.lock().get(address, now)),
            connection: Bucket::default(),
            classes: SmallVec::new(),
            told: Bucket::default(),
            rates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn rate(messages: usize, bytes: usize, burst: u64) -> Rate {
        let some = |n: usize| (n > 0).then_some(n);
        Rate { messages: some(messages), bytes: some(bytes), burst: Duration::from_secs(burst) }
    }

    fn throttles(connection: Rate, user: Rate, address: Rate) -> Throttles {
        Throttles::new(RateConfig { connection, user, address, wait: Duration::from_secs(2) })
    }

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let throttles = throttles(rate(10, 0, 3), rate(0, 0, 1), rate(0, 0, 1));
        let mut one = throttles.of("alice", None, 0);
        let admitted = (0..100).take_while(|_| one.admit(None, 5, SECOND).is_ok()).count();
        assert_eq!(admitted, 31, "three seconds' worth, and one that always has room");
        assert_eq!(one.admit(None, 5, SECOND), Err(Duration::from_millis(100)));
        assert_eq!(one.admit(None, 5, SECOND + SECOND / 10), Ok(()));
        let later: usize =
            (0..1000).filter(|tick| one.admit(None, 5, 2 * SECOND + tick * SECOND / 100).is_ok()).count();
        assert!((107..=111).contains(&later), "{later} in ten seconds and what was saved up in one");
    }

    #[test]
    fn bytes_count_too_and_a_refusal_costs_nothing() {
        let throttles = throttles(rate(0, 1000, 1), rate(0, 0, 1), rate(0, 0, 1));
        let mut one = throttles.of("alice", None, 0);
        assert_eq!(one.admit(None, 5000, 0), Ok(()), "one always has room, however large");
        for _ in 0..10 {
            assert_eq!(one.admit(None, 1, 0), Err(Duration::from_secs(4)));
        }
        assert_eq!(one.admit(None, 1, 4 * SECOND), Ok(()));
    }

    #[test]
    fn what_has_happened_already_is_waited_for_afterwards() {
        let throttles = throttles(rate(10, 0, 1), rate(0, 0, 1), rate(0, 0, 1));
        let mut one = throttles.of("alice", None, 0);
        assert!((0..10).all(|_| one.charge(0, 0).is_zero()));
        assert_eq!(one.charge(0, 0), Duration::from_millis(100));
        assert_eq!(one.charge(0, 0), Duration::from_millis(200));
        assert_eq!(one.admit(None, 0, 0), Err(Duration::from_millis(200)));
        assert_eq!(one.admit(None, 0, SECOND / 5), Ok(()));
    }

    #[test]
    fn of_very_many_refusals_some_are_told() {
        let mut one = throttles(rate(0, 0, 1), rate(0, 0, 1), rate(0, 0, 1)).of("alice", None, 0);
        let told = |one: &mut Throttle, now| (0..1000).filter(|_| one.tells(now)).count();
        assert_eq!((told(&mut one, 0), told(&mut one, SECOND)), (101, 10));
    }

    #[test]
    fn what_is_shared_is_shared_by_user_and_by_address_and_forgotten_with_the_last() {
        let throttles = throttles(rate(0, 0, 1), rate(1, 0, 1), rate(2, 0, 1));
        let (here, there) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        let (mut phone, mut laptop) = (throttles.of("alice", here, 0), throttles.of("alice", there, 0));
        assert_eq!((phone.admit(None, 1, 0), laptop.admit(None, 1, 0)), (Ok(()), Ok(())));
        assert_eq!(laptop.admit(None, 1, 0), Err(Duration::from_secs(1)));
        let mut bob = throttles.of("bob", here, 0);
        assert_eq!((bob.admit(None, 1, 0), bob.admit(None, 1, 0)), (Ok(()), Ok(())));
        assert_eq!(bob.admit(None, 1, 0), Err(Duration::from_secs(1)));
        let mut carol = throttles.of("carol", here, 0);
        assert_eq!(carol.admit(None, 1, 0), Err(Duration::from_millis(500)), "by their address");
        drop((phone, laptop, bob, carol));
        assert!(throttles.of("alice", None, 0).admit(None, 1, 0).is_err(), "who comes back owes what was owed");
        for n in 0..10 * LEAST {
            throttles.of(&format!("user-{n}"), None, 60 * SECOND);
        }
        assert!(throttles.users.lock().of.len() <= LEAST);
    }

    #[test]
    fn what_a_class_has_made_already_is_waited_for_before_the_next() {
        let rules = super::super::Rules::new(&Default::default(), false, 0);
        let tag = rules.tag(rules.table.named("signal")).expect("a class");
        let mut one = throttles(rate(0, 0, 1), rate(0, 0, 1), rate(0, 0, 1)).of("alice", None, 0);
        let slow = rate(10, 0, 2);
        assert_eq!(one.owes(tag, &slow, 0), Duration::ZERO);
        one.charge_class(tag, &slow, 50, 0);
        assert_eq!(one.owes(tag, &slow, 0), Duration::from_secs(3));
        assert_eq!(one.owes(tag, &slow, 3 * SECOND), Duration::ZERO);
        assert_eq!(one.owes(tag, &rate(0, 0, 1), 0), Duration::ZERO, "no bound");
    }

    #[test]
    fn each_class_has_its_own_rate() {
        let rules = super::super::Rules::new(&Default::default(), false, 0);
        let tag = |name| rules.tag(rules.table.named(name)).expect("a class");
        let throttles = throttles(rate(0, 0, 1), rate(0, 0, 1), rate(0, 0, 1));
        let mut one = throttles.of("alice", None, 0);
        let slow = rate(1, 0, 1);
        assert_eq!(one.admit(Some((tag("chat"), slow)), 1, 0), Ok(()));
        assert_eq!(one.admit(Some((tag("chat"), slow)), 1, 0), Ok(()));
        assert!(one.admit(Some((tag("chat"), slow)), 1, 0).is_err());
        assert_eq!(one.admit(Some((tag("signal"), slow)), 1, 0), Ok(()));
    }
}
