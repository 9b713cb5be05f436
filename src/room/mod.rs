//! Rooms: who is in them, who may be, and who is told.
//!
//! A room is there from its first member to its last, and takes with it all that it held. Subscribing to its signal
//! topic is joining, whatever the client; the end of the last such subscription is leaving, and so is the end of the
//! connection, at once if that was said and after a grace if it was not:
//!
//! ```text
//!                 joins                      lost
//!   (no place) ──────────► live, session S ────────► held for S, until the grace is over
//!        ▲    opens, joined   │  ▲    ▲              │      │        │
//!        │                    │  │    └──────────────┘      │        │
//!        │   leaves, kicked,  │  │      S is back: nothing shows     │ the grace is over:
//!        │   closed …: left   │  └──────────────────────────┘        │ left (lost, expired)
//!        ├────────────────────┘    another session of that user      │
//!        └───────────────────────── joins: a new instance, no join ──┘
//! ```
//!
//! [`Room`] is that machine, for one room, pure: sessions are values to it and the time is an argument. The hub carries
//! out what it says (`live`, `moderation`): presence and events are published while the room is locked, so that for
//! every stay there is exactly one join and one leave, in that order.
//!
//! Lock order: a room, then a shard of the hub or of the registry of sessions, then a session.

mod live;
mod moderation;
mod places;
mod registry;
mod survey;

pub use live::{Entry, Event, Gone, Lapse, Parting, timestamp};
pub use moderation::{Action, Moderation, Problem};
pub use places::{Closed, Held, Join, Member, Reason, Refused, Room};
pub use registry::{Overview, Rooms, SessionRef};
pub use survey::{Summary, Survey};
