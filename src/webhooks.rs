//! Events over HTTP, for services that do not speak MQTT: each is sent to one URL, signed, and tried again until it was
//! taken or given up.
//!
//! `POST {"events":[{"event":"member/joined","at":…,…},…]}` with the events that wait, up to [`TOGETHER`], in their
//! order. `Wigwag-Signature: t=1790000000,v1=…` is the HMAC-SHA256, in hexadecimal, of the time, a full stop and the
//! body; the time is that of the attempt, so that a receiver can refuse what is old. `Wigwag-Delivery` is the same for
//! each attempt at the same events. A status of 2xx takes them; anything else, or no answer in time, is a failure, after
//! which it waits, longer each time, and with some chance in it, lest all servers come back at the same moment.
//!
//! Whoever has something to tell puts it into a bounded queue, and what does not fit there is dropped and counted. One
//! thread, none of the workers, does the rest.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Condvar, Mutex};
use ring::hmac;
use serde::Serialize;
use ureq::Agent;

use crate::{
    config::{Hook, WebhooksConfig},
    metrics::Metrics,
    outgoing::agent,
    room::Event,
};

/// Events of one request.
const TOGETHER: usize = 100;
/// The wait after the first failure, doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// See the module. Dropped, it gives up what still waits.
pub struct Webhooks {
    events: Vec<Hook>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    most: usize,
    metrics: Arc<Metrics>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<str>>,
    /// Nothing more comes; what waits is tried once, by then.
    until: Option<Instant>,
}

/// An event as it is sent.
#[derive(Serialize)]
struct Told<'a> {
    event: &'a str,
    #[serde(flatten)]
    what: &'a Event<'a>,
}

impl Webhooks {
    /// Starts the thread; `None` if there is nowhere to send anything.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(config: &WebhooksConfig, metrics: &Arc<Metrics>) -> std::io::Result<Option<Self>> {
        let (Some(url), Some(secret)) = (&config.url, &config.secret) else { return Ok(None) };
        let (metrics, queue, changed) = (Arc::clone(metrics), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { most: config.queue, metrics, queue, changed });
        let agent = agent(url, config.timeout, 1);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let sender =
            Sender { shared: Arc::clone(&shared), agent, url: url.clone(), key, attempts: config.attempts.max(1) };
        let thread = std::thread::Builder::new().name("wigwag-webhooks".into()).spawn(move || sender.run())?;
        Ok(Some(Self { events: config.events.clone(), shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Queues an event of `events/…`, if it is among those that are wanted.
    pub fn offer(&self, topic: &str, event: &Event<'_>) {
        let name = topic.strip_prefix("events/").unwrap_or(topic);
        if !self.events.iter().any(|wanted| wanted.name() == name) {
            return;
        }
        let mut queue = self.shared.queue.lock();
        if queue.waiting.len() >= self.shared.most || queue.until.is_some() {
            drop(queue);
            return self.shared.metrics.webhooks_dropped.increment(1);
        }
        let told = serde_json::to_string(&Told { event: name, what: event }).unwrap_or_default();
        queue.waiting.push_back(told.into());
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// Sends what waits, trying everything once, and ends; waits for that until `deadline`.
    pub async fn finish(&self, deadline: Instant) {
        self.shared.close(deadline);
        let thread = self.thread.lock().take();
        let (done, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // A thread that panicked has ended, too.
            let _ = thread.map(JoinHandle::join);
            // Nobody may be waiting any more.
            let _ = done.send(());
        });
        let _ = tokio::time::timeout_at(deadline.into(), ended).await;
    }

    /// Events that have not been taken yet.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().waiting.len()
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.shared.close(Instant::now());
    }
}

impl Shared {
    fn close(&self, until: Instant) {
        self.queue.lock().until.get_or_insert(until);
        self.changed.notify_all();
    }
}

/// What the thread does.
struct Sender {
    shared: Arc<Shared>,
    agent: Agent,
    url: String,
    key: hmac::Key,
    attempts: usize,
}

impl Sender {
    fn run(self) {
        while let Some((body, count)) = self.next() {
            let metrics = &self.shared.metrics;
            if self.deliver(&body) {
                metrics.webhooks_delivered.increment(count);
            } else {
                metrics.webhooks_failed.increment(count);
            }
        }
    }

    /// Waits for events and takes as many as go together; `None` when there will be none any more.
    fn next(&self) -> Option<(String, u64)> {
        let mut queue = self.shared.queue.lock();
        while queue.waiting.is_empty() && queue.until.is_none() {
            self.shared.changed.wait(&mut queue);
        }
        if queue.until.is_some_and(|until| until <= Instant::now()) {
            self.shared.metrics.webhooks_failed.increment(queue.waiting.len() as u64);
            queue.waiting.clear();
        }
        let count = queue.waiting.len().min(TOGETHER);
        let events = queue.waiting.drain(..count).map(String::from).collect::<Vec<_>>().join(",");
        if queue.waiting.is_empty() {
            queue.waiting.shrink_to(TOGETHER);
        }
        (count > 0).then(|| (format!("{{\"events\":[{events}]}}"), count as u64))
    }

    /// Tries until it was taken; `false` when that is given up.
    fn deliver(&self, body: &str) -> bool {
        let delivery = format!("{:016x}", random());
        for attempt in 1.. {
            let problem = match self.post(body, &delivery) {
                Ok(()) => return true,
                Err(problem) => problem,
            };
            let last = attempt >= self.attempts || !self.pause(pause(attempt, random()));
            if last {
                tracing::error!(%problem, attempt, "webhooks: events are given up");
                return false;
            }
            tracing::warn!(%problem, attempt, "webhooks: not taken; it is tried again");
        }
        false
    }

    fn post(&self, body: &str, delivery: &str) -> Result<(), String> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("wigwag-delivery", delivery)
            .header("wigwag-signature", format!("t={time},v1={}", signature(&self.key, time, body)));
        let response = request.send(body).map_err(|error| error.to_string())?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("answered {}", status.as_u16())) }
    }

    /// Waits; `false` if there is no time left for another attempt.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut queue = self.shared.queue.lock();
        while queue.until.is_none() {
            if self.shared.changed.wait_until(&mut queue, until).timed_out() {
                return true;
            }
        }
        false
    }
}

fn signature(key: &hmac::Key, time: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{time}.{body}").as_bytes());
    tag.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// How long to wait after that many failures: between half and all of what doubles each time.
fn pause(failures: usize, random: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let most = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    let part = 0.5 + (random >> 32) as f64 / 2_f64.powi(33);
    most.mul_f64(part)
}

fn random() -> u64 {
    // Without randomness all servers wait equally long, which is only less polite.
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_with_chance_in_it() {
        let least = |failures| pause(failures, 0);
        assert_eq!([1, 2, 3].map(least), [250, 500, 1000].map(Duration::from_millis));
        for failures in [8, 9, 1000, usize::MAX] {
            assert_eq!(least(failures), LONGEST_PAUSE / 2);
            assert!(pause(failures, u64::MAX) <= LONGEST_PAUSE);
        }
        assert!(pause(1, u64::MAX) > Duration::from_millis(499));
    }

    /// `printf '1790000000.{}' | openssl dgst -sha256 -hmac "$secret"`
    #[test]
    fn the_signature_is_of_the_time_and_the_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret that the receiver has as well");
        assert_eq!(
            signature(&key, 1_790_000_000, "{}"),
            "4a48f37eb223c7f18b4d809ef3a7a0b950f40ebbf60ba7a8c9d7df284b12a9b0"
        );
        assert_ne!(
            signature(&key, 1_790_000_001, "{}"),
            "4a48f37eb223c7f18b4d809ef3a7a0b950f40ebbf60ba7a8c9d7df284b12a9b0"
        );
    }
}
