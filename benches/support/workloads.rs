//! What is measured: small workloads that do the same thing again and again.

use wigwag::wire::mqtt::{QoS, Version};

use super::support::{Peer, World, candidate};

/// Names, for a command line and for bounds.
pub const NAMES: [&str; 5] = ["call-group-qos1", "call-group-qos0", "call-single-qos1", "fanout-50", "connect"];

/// Rooms in which calls are made at the same time.
const ROOMS: usize = 20;
const MEMBERS: usize = 50;

/// One workload. A step is made of bytes that lie ready, of the broker's work, and of looking what came of it; only the
/// broker's work is for counting, and `broker` says how that is called.
pub struct Workload {
    world: World,
    peers: Vec<Peer>,
    kind: Kind,
    visits: usize,
}

enum Kind {
    /// Rooms of two; for each client what it sends in a turn, and how many messages that is.
    Call { said: Vec<Vec<u8>>, messages: usize, turn: usize },
    /// One room.
    Fanout { said: Vec<Vec<u8>>, turn: usize },
    /// Clients that come, subscribe, and go.
    Connect { subscribe: Vec<u8>, disconnect: Vec<u8> },
}

impl Workload {
    /// In MQTT 3.1.1 over WebSocket. A name that is not one of [`NAMES`] is nobody's.
    pub fn new(name: &str) -> Option<Self> {
        let world = World::new(Version::V311, true);
        let (peers, kind) = match name {
            "call-group-qos1" => call(&world, 4, QoS::AtLeastOnce),
            "call-group-qos0" => call(&world, 4, QoS::AtMostOnce),
            "call-single-qos1" => call(&world, 1, QoS::AtLeastOnce),
            "fanout-50" => fanout(&world),
            "connect" => {
                let subscribe = world.subscribe(&["rooms/bench/signal"]);
                (Vec::new(), Kind::Connect { subscribe, disconnect: world.disconnect() })
            }
            _ => return None,
        };
        Some(Self { world, peers, kind, visits: 0 })
    }

    /// Steps until everything has the size that it has in a server which has run for a while.
    pub fn warm_up(&mut self) {
        for _ in 0..20 {
            self.step(World::settle);
        }
    }

    /// What one step's work is counted in: deliveries to somebody else than the sender, or connections.
    pub fn step(&mut self, broker: impl Fn(&World)) -> usize {
        let Self { world, peers, kind, visits } = self;
        match kind {
            Kind::Call { said, messages, turn } => {
                let side = *turn % 2;
                *turn += 1;
                for speaker in (side..peers.len()).step_by(2) {
                    peers[speaker].send(&said[speaker]);
                }
                broker(world);
                let heard: usize = peers.iter_mut().map(|peer| world.receive(peer).messages).sum();
                // In 3.1.1 the speaker hears itself.
                assert_eq!(heard, *messages * peers.len(), "every message to both members");
                broker(world); // their acknowledgements
                heard / 2
            }
            Kind::Fanout { said, turn } => {
                let speaker = *turn % peers.len();
                *turn += 1;
                peers[speaker].send(&said[speaker]);
                broker(world);
                let heard: usize = peers.iter_mut().map(|peer| world.receive(peer).messages).sum();
                assert_eq!(heard, peers.len(), "everybody hears it");
                broker(world);
                heard - 1
            }
            Kind::Connect { subscribe, disconnect } => {
                *visits += 1;
                let mut peer = world.connect(&format!("v-{visits:06}"));
                broker(world);
                peer.send(subscribe);
                broker(world);
                assert_eq!(world.receive(&mut peer).answers, 2, "a CONNACK and a SUBACK");
                peer.send(disconnect);
                broker(world);
                peer.hang_up();
                broker(world);
                1
            }
        }
    }
}

fn call(world: &World, messages: usize, qos: QoS) -> (Vec<Peer>, Kind) {
    let (mut peers, mut said) = (Vec::new(), Vec::new());
    for nth in 0..2 * ROOMS {
        let topic = format!("rooms/bench-{:06}/signal", nth / 2);
        let user = format!("{}-{:06}", ["a", "b"][nth % 2], nth / 2);
        peers.push(world.join(&user, &[&topic]));
        let payload = candidate(&user);
        said.push((1..=messages).flat_map(|id| world.publish(&topic, qos, id as u16, &payload)).collect());
    }
    settle(world, &mut peers);
    (peers, Kind::Call { said, messages, turn: 0 })
}

fn fanout(world: &World) -> (Vec<Peer>, Kind) {
    let topic = "rooms/bench/signal";
    let user = |nth| format!("m-{nth:06}");
    let mut peers: Vec<Peer> = (0..MEMBERS).map(|nth| world.join(&user(nth), &[topic])).collect();
    let said = (0..MEMBERS).map(|nth| world.publish(topic, QoS::AtLeastOnce, 1, &candidate(&user(nth)))).collect();
    settle(world, &mut peers);
    (peers, Kind::Fanout { said, turn: 0 })
}

fn settle(world: &World, peers: &mut [Peer]) {
    for peer in peers {
        world.receive(peer);
    }
    world.settle();
}
