//! A decision with the rows that led to it, for people.
//!
//! It is taken down while the decision is made, not made a second time: what is explained is what is enforced.

use std::fmt;

use super::place::{Overlap, Place};
use super::{ClassId, Denied, TopicTable, Who, Why};
use crate::config::{Audience, Combination, TopicRow, Word};

/// What was decided, and the rows looked at on the way. Displays as a few lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub(super) action: Action,
    /// The topic or filter asked about.
    pub topic: String,
    /// In the order of the table, down to the row that ended it.
    pub steps: Vec<Step>,
    /// How it is allowed, in words, or why not.
    pub verdict: Result<String, Denied>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Publish,
    Subscribe,
}

/// One row that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub class: ClassId,
    /// Of the row.
    pub name: String,
    /// Of the row.
    pub filter: String,
    pub(super) outcome: Outcome,
}

/// What a row had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has nothing in common with what is asked.
    Apart,
    /// It has.
    Judged {
        matches: &'static str,
        /// What should be a name and is none.
        nameless: bool,
        /// A shared subscription that is not to be.
        unshared: bool,
        action: &'static str,
        conditions: Vec<Condition>,
    },
}

/// A combination of words, and those of them that are not true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    combination: Combination,
    lacking: Vec<Word>,
}

impl Step {
    fn new(class: ClassId, row: &TopicRow, outcome: Outcome) -> Self {
        Self { class, name: row.name.clone(), filter: row.filter.to_string(), outcome }
    }
}

impl Outcome {
    pub(super) fn publish(row: &TopicRow, who: &Who<'_>, place: &Place<'_>, granted: &dyn Fn() -> bool) -> Self {
        Self::judged("matches", "publish", conditions(&row.publish, who, place, granted), place)
    }

    pub(super) fn subscribe(row: &TopicRow, who: &Who<'_>, common: &Overlap<'_>, granted: &dyn Fn() -> bool) -> Self {
        let matches = if common.covers { "matches all of it" } else { "matches some of it" };
        Self::judged(matches, "subscribe", conditions(&row.subscribe, who, &common.place, granted), &common.place)
    }

    fn judged(matches: &'static str, action: &'static str, conditions: Vec<Condition>, place: &Place<'_>) -> Self {
        Self::Judged { matches, nameless: !place.has_names(), unshared: false, action, conditions }
    }

    /// The same for a shared subscription where there is none.
    pub(super) fn unshared(mut self) -> Self {
        if let Self::Judged { unshared, .. } = &mut self {
            *unshared = true;
        }
        self
    }
}

fn conditions(audience: &Audience, who: &Who<'_>, place: &Place<'_>, granted: &dyn Fn() -> bool) -> Vec<Condition> {
    let condition = |combination: &Combination| {
        let lacking = combination.words().filter(|word| !who.holds(*word, place, granted)).collect();
        Condition { combination: *combination, lacking }
    };
    audience.combinations().iter().map(condition).collect()
}

/// The steps, where somebody wants them.
pub(super) struct Notes(Option<Vec<Step>>);

impl Notes {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn taken() -> Self {
        Self(Some(Vec::new()))
    }

    /// What a row had to say; the rows between it and the one before had nothing.
    pub(super) fn add(&mut self, table: &TopicTable, class: ClassId, outcome: impl FnOnce() -> Outcome) {
        if let Some(steps) = &mut self.0 {
            let skipped = table.rows().take(usize::from(class.0)).skip(steps.len());
            steps.extend(skipped.map(|(class, row)| Step::new(class, row, Outcome::Apart)));
            steps.push(Step::new(class, table.row(class), outcome()));
        }
    }

    /// The rows that follow had nothing to say either.
    pub(super) fn add_rest(&mut self, table: &TopicTable) {
        if let Some(steps) = &mut self.0 {
            let skipped = table.rows().skip(steps.len());
            steps.extend(skipped.map(|(class, row)| Step::new(class, row, Outcome::Apart)));
        }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.0.unwrap_or_default()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Publish => "publish to",
            Action::Subscribe => "subscribe to",
        };
        write!(f, "{action} {:?}: ", self.topic)?;
        match &self.verdict {
            Ok(how) => writeln!(f, "allowed, {how}")?,
            Err(denied) => writeln!(f, "refused with 0x{:02X}, {}", denied.why.reason().0, denied.why.what())?,
        }
        let name = self.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
        let filter = self.steps.iter().map(|step| step.filter.chars().count()).max().unwrap_or(0);
        for Step { class, name: row, filter: pattern, outcome } in &self.steps {
            writeln!(f, "{:>4}. {row:name$}  {pattern:filter$}  {outcome}", class.0 + 1)?;
        }
        match &self.verdict {
            Err(Denied { why: Why::NoRow, .. }) => writeln!(f, "      no row matches"),
            Err(Denied { class: None, .. }) => writeln!(f, "      no row allows the rest"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Judged { matches, nameless, unshared, action, conditions } = self else {
            return f.write_str("does not match");
        };
        f.write_str(matches)?;
        if *nameless {
            return f.write_str("; what should name a room or a user is no name");
        }
        write!(f, "; {action}: ")?;
        for (n, condition) in conditions.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{condition}")?;
        }
        f.write_str(if *unshared { "; not shared" } else { "" })
    }
}

/// `member no`, `self+join no (not join)`, `nobody`
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { combination, lacking } = self;
        if [Word::Anyone, Word::Broker, Word::Nobody].into_iter().any(|word| combination.contains(word)) {
            return write!(f, "{combination}");
        }
        write!(f, "{combination} {}", if lacking.is_empty() { "yes" } else { "no" })?;
        if !lacking.is_empty() && combination.words().count() > 1 {
            let words: Vec<_> = lacking.iter().map(Word::to_string).collect();
            write!(f, " (not {})", words.join(", not "))?;
        }
        Ok(())
    }
}
