//! Judging a subscription.

use super::explain::{Action, Explanation, Notes, Outcome};
use super::place::{self, Levels, Overlap, Reach};
use super::{ClassSet, Denied, TopicTable, Who, Why};
use crate::{config::TopicRow, wire::mqtt::QoS};

/// How a subscription may be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeDecision<'f> {
    /// What was asked for, or the highest cap of the classes that it shows.
    pub qos: QoS,
    /// The room that this subscription joins, if there is place in it.
    pub joins: Option<&'f str>,
    /// The one room that everything is in that it matches.
    pub room: Option<&'f str>,
    /// What it shows of what it matches, by [`PublishDecision::shown_as`](super::PublishDecision::shown_as).
    pub visible: ClassSet,
    /// It is an observer's, and spans classes.
    pub observes: bool,
}

/// A SUBSCRIBE, as far as the table is concerned.
struct Asked<'f> {
    /// Without `$share/…/`.
    filter: &'f str,
    shared: bool,
    qos: QoS,
}

impl TopicTable {
    /// Judges one filter of a SUBSCRIBE, a valid one; that of a shared subscription without `$share/…/`.
    ///
    /// # Errors
    /// Something that it matches may not be read; for an observer's wildcard, nothing that it matches may.
    pub fn subscribe<'f>(
        &self,
        who: &Who<'_>,
        filter: &'f str,
        shared: bool,
        qos: QoS,
    ) -> Result<SubscribeDecision<'f>, Denied> {
        self.judge_subscribe(who, &Asked { filter, shared, qos }, &mut Notes::none())
    }

    /// The same decision, and how it came about.
    pub fn explain_subscribe(&self, who: &Who<'_>, filter: &str, shared: bool, qos: QoS) -> Explanation {
        let mut notes = Notes::taken();
        let verdict = self.judge_subscribe(who, &Asked { filter, shared, qos }, &mut notes);
        let granted = verdict.map(|decision| {
            let joins = decision.joins.map_or(String::new(), |room| format!(", joins {room:?}"));
            format!("at QoS {}{joins}{}", decision.qos as u8, self.shown(decision.visible))
        });
        Explanation { action: Action::Subscribe, topic: filter.into(), steps: notes.into_steps(), verdict: granted }
    }

    fn shown(&self, visible: ClassSet) -> String {
        if visible == ClassSet::ALL {
            return String::new();
        }
        let names = self.rows().filter(|(class, _)| visible.contains(*class)).map(|(_, row)| &*row.name);
        format!(", shows {} alone", names.collect::<Vec<_>>().join(", "))
    }

    fn judge_subscribe<'f>(
        &self,
        who: &Who<'_>,
        asked: &Asked<'f>,
        notes: &mut Notes,
    ) -> Result<SubscribeDecision<'f>, Denied> {
        let levels = Levels::of_filter(asked.filter);
        let in_part = asked.is_wild() && who.grants.observe();
        let (mut readable, mut cap, mut joins) = (ClassSet::EMPTY, None, None);
        let (mut whole, mut covered, mut room, mut classes) = (true, false, None, 0);
        for (class, row) in self.rows() {
            let Some(common) = place::overlap(&row.filter, &levels, who) else { continue };
            notes.add(self, class, || asked.outcome(row, who, &common));
            classes += 1;
            room = match room {
                None => Some(common.place.room),
                first => first.filter(|first| *first == common.place.room).or(Some(Reach::Any)),
            };
            match asked.judge(row, who, &common) {
                Ok(()) => {
                    // No message is shown by the class of a row for one client.
                    readable = if row.filter.is_bound() { readable } else { readable.with(class) };
                    cap = cap.max(Some(row.qos.max));
                    joins = joins.or(asked.joins(row, who, &common));
                }
                // What is one client's own is shown by the class of a later row, which knows nothing of this refusal.
                Err(_) if in_part && !row.filter.is_bound() => whole = false,
                Err(why) => return Err(Denied { class: Some(class), why }),
            }
            if common.covers {
                covered = true;
                break;
            }
        }
        if !covered {
            notes.add_rest(self);
        }
        let visible = if whole && covered { ClassSet::ALL } else { readable };
        match cap.filter(|_| (covered || in_part) && visible != ClassSet::EMPTY) {
            Some(cap) => {
                let room = room.and_then(Reach::name);
                let observes = in_part && classes > 1;
                Ok(SubscribeDecision { qos: asked.qos.min(cap), joins, room, visible, observes })
            }
            None if asked.is_wild() => Err(Denied { class: None, why: Why::Reach }),
            None => Err(Denied { class: None, why: Why::NoRow }),
        }
    }
}

impl<'f> Asked<'f> {
    fn is_wild(&self) -> bool {
        self.filter.contains(['+', '#'])
    }

    /// Whether all that the filter and the row have in common may be read.
    fn judge(&self, row: &TopicRow, who: &Who<'_>, common: &Overlap<'_>) -> Result<(), Why> {
        match () {
            () if !common.place.has_names() => Err(Why::FilterName),
            () if !who.is_among(&row.subscribe, &common.place, &|| self.is_granted(row, who)) => {
                Err(if self.is_wild() { Why::Reach } else { Why::Subscribe })
            }
            () if self.shared && !may_share(row, who) => Err(Why::Shared),
            () => Ok(()),
        }
    }

    fn is_granted(&self, row: &TopicRow, who: &Who<'_>) -> bool {
        who.grants.may_subscribe(&place::meet(&row.filter, self.filter, who))
    }

    /// The room that it joins by this row. A wildcard joins nothing, nor does a share of a subscription.
    fn joins(&self, row: &TopicRow, who: &Who<'_>, common: &Overlap<'f>) -> Option<&'f str> {
        let own = matches!(common.place.user, Reach::Absent) || common.place.user == Reach::One(who.user);
        let joins = row.joins && own && !self.shared && !self.is_wild();
        common.place.room.name().filter(|room| joins && who.grants.room(room).join)
    }

    fn outcome(&self, row: &TopicRow, who: &Who<'_>, common: &Overlap<'_>) -> Outcome {
        let outcome = Outcome::subscribe(row, who, common, &|| self.is_granted(row, who));
        if self.shared && !may_share(row, who) { outcome.unshared() } else { outcome }
    }
}

/// A share of a room's topics takes messages from its members, so it is for who is none; what is a user's own is not
/// shared at all.
fn may_share(row: &TopicRow, who: &Who<'_>) -> bool {
    if row.filter.has_room() { who.grants.observe() || who.grants.has_service() } else { !row.filter.has_user() }
}
