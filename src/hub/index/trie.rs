//! A tree of topic levels: what subscriptions and retained messages are found in.
//!
//! It promises that
//! - finding, adding and removing a path costs one look-up per level of *that* path, whatever else the tree holds;
//! - a node whose value is vacant and which has no children does not exist;
//! - changes, look-ups and dropping are loops. Only the walks that branch use the stack: matching recurses once per
//!   `+` and [`Trie::sweep`] once per level, so the number of levels is the caller's to bound (a thousand is fine).
//!
//! Paths are trusted to be what the caller says, valid topic names or valid filters; nothing is checked again here.

use std::ops::ControlFlow::{self, Continue};

use super::level_map::LevelMap;

/// What a node holds.
pub(in crate::hub) trait Slot: Default {
    /// Whether the node has no reason of its own to exist.
    fn is_vacant(&self) -> bool;
}

impl<M> Slot for Option<M> {
    fn is_vacant(&self) -> bool {
        self.is_none()
    }
}

pub(in crate::hub) struct Trie<T> {
    /// Stands for the empty path, which is no topic; its value is never used.
    root: Node<T>,
    /// Nodes below the root.
    nodes: usize,
}

#[derive(Default)]
struct Node<T> {
    children: LevelMap<Node<T>>,
    value: T,
}

impl<T: Slot> Default for Trie<T> {
    fn default() -> Self {
        Trie { root: Node::default(), nodes: 0 }
    }
}

impl<T: Slot> Trie<T> {
    /// Nodes that exist.
    pub(in crate::hub) fn node_count(&self) -> usize {
        self.nodes
    }

    pub(in crate::hub) fn get(&self, path: &str) -> Option<&T> {
        let mut node = &self.root;
        for level in levels(path) {
            node = node.children.get(level)?;
        }
        Some(&node.value)
    }

    /// The value at `path`, made if it is not there. The caller fills it: a vacant value would stay.
    pub(in crate::hub) fn get_or_create(&mut self, path: &str) -> &mut T {
        let mut node = &mut self.root;
        for level in levels(path) {
            let (child, created) = node.children.get_or_default(level);
            self.nodes += usize::from(created);
            node = child;
        }
        &mut node.value
    }

    /// Lets `change` take from the value at `path`, if there is one, and removes whatever is empty afterwards.
    pub(in crate::hub) fn update<R>(&mut self, path: &str, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut node = &mut self.root;
        // How many levels of the path lead to the last node that stays even if the path's end goes.
        let mut kept = 0;
        for (depth, level) in levels(path).enumerate() {
            if node.children.len() > 1 || !node.value.is_vacant() {
                kept = depth;
            }
            node = node.children.get_mut(level)?;
        }
        let result = change(&mut node.value);
        if node.is_idle() {
            self.cut(path, kept);
        }
        Some(result)
    }

    /// Removes the branch that `path` takes after its first `kept` levels.
    fn cut(&mut self, path: &str, kept: usize) {
        let mut node = &mut self.root;
        let mut levels = levels(path);
        for level in levels.by_ref().take(kept) {
            let Some(child) = node.children.get_mut(level) else { return };
            node = child;
        }
        if let Some(branch) = levels.next().and_then(|level| node.children.remove(level)) {
            self.nodes -= 1 + dismantle(branch.children);
        }
    }

    /// Lets `change` take from every value, and removes whatever is empty afterwards.
    pub(in crate::hub) fn sweep(&mut self, mut change: impl FnMut(&mut T)) {
        self.nodes -= sweep(&mut self.root.children, &mut change);
    }

    /// The paths are filters: visits the value of each that matches the topic name `topic`. Allocates nothing.
    pub(in crate::hub) fn filters_matching<'a>(&'a self, topic: &str, visit: &mut impl FnMut(&'a T)) {
        let topic = topic.as_bytes();
        if topic.first() != Some(&b'$') {
            return self.root.filters_matching(Some(topic), visit);
        }
        // A filter that starts with a wildcard does not match a topic that starts with `$` [MQTT-4.7.2-1].
        let (level, rest) = split(topic);
        if let Some(child) = self.root.children.get(level) {
            child.filters_matching(rest, visit);
        }
    }

    /// The paths are filters: visits the value of each that can match a topic below `path`, in which `+` stands for any
    /// level; of those, if there is a level `named`, the ones that have that level of `path` themselves and no wildcard
    /// there.
    pub(in crate::hub) fn filters_reaching<'a>(
        &'a self,
        path: &str,
        named: Option<usize>,
        visit: &mut impl FnMut(&'a T),
    ) {
        self.root.filters_reaching(Some(path.as_bytes()), named, visit);
    }

    /// The paths are topic names: visits the value of each that the filter `filter` matches, until `visit` breaks off.
    pub(in crate::hub) fn topics_matching<'a>(
        &'a self,
        filter: &str,
        visit: &mut impl FnMut(&'a T) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (level, rest) = split(filter.as_bytes());
        if level != b"+" && level != b"#" {
            return self.root.topics_matching(Some(filter.as_bytes()), visit);
        }
        // A filter that starts with a wildcard does not match a topic that starts with `$` [MQTT-4.7.2-1].
        for (_, child) in self.root.children.iter().filter(|(name, _)| name.first() != Some(&b'$')) {
            match level {
                b"#" => child.visit_all(visit)?,
                _ => child.topics_matching(rest, visit)?,
            }
        }
        Continue(())
    }
}

impl<T: Slot> Node<T> {
    /// Whether the node has no reason left to exist.
    fn is_idle(&self) -> bool {
        self.value.is_vacant() && self.children.is_empty()
    }

    /// `topic` is what follows below this node, `None` where the topic ends here.
    fn filters_matching<'a>(&'a self, mut topic: Option<&[u8]>, visit: &mut impl FnMut(&'a T)) {
        let mut node = self;
        loop {
            // `#` stands for the parent level too, so it is asked before the topic may end (4.7.1.2).
            let Some(levels) = topic else {
                node.children.get(b"#").and_then(Self::value).into_iter().for_each(&mut *visit);
                return node.value().into_iter().for_each(visit);
            };
            let (level, rest) = split(levels);
            let [multi_level, single_level, child] = node.children.get_three(level);
            multi_level.and_then(Self::value).into_iter().for_each(&mut *visit);
            if let Some(single_level) = single_level {
                single_level.filters_matching(rest, visit);
            }
            let Some(child) = child else { return };
            (node, topic) = (child, rest);
        }
    }

    /// `path` is what follows below this node, `named` counts its levels from here.
    fn filters_reaching<'a>(&'a self, path: Option<&[u8]>, named: Option<usize>, visit: &mut impl FnMut(&'a T)) {
        let Some(path) = path else {
            let _never_breaks = self.visit_all(&mut |value| {
                visit(value);
                Continue(())
            });
            return;
        };
        let (level, rest) = split(path);
        let deeper = named.map(|level| level.saturating_sub(1));
        if named == Some(0) {
            return self.children.get(level).into_iter().for_each(|child| child.filters_reaching(rest, None, visit));
        }
        if named.is_none()
            && let Some(multi_level) = self.children.get(b"#")
        {
            multi_level.value().into_iter().for_each(&mut *visit);
        }
        if level == b"+" {
            let levels = self.children.iter().filter(|(name, _)| **name != *b"#");
            return levels.for_each(|(_, child)| child.filters_reaching(rest, deeper, visit));
        }
        for level in [level, b"+"] {
            self.children.get(level).into_iter().for_each(|child| child.filters_reaching(rest, deeper, visit));
        }
    }

    /// `filter` is what follows below this node, `None` where the filter ends here.
    fn topics_matching<'a>(
        &'a self,
        mut filter: Option<&[u8]>,
        visit: &mut impl FnMut(&'a T) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut node = self;
        while let Some(levels) = filter {
            let (level, rest) = split(levels);
            match level {
                b"#" => return node.visit_all(visit),
                b"+" => return node.children.iter().try_for_each(|(_, child)| child.topics_matching(rest, visit)),
                _ => {
                    let Some(child) = node.children.get(level) else { return Continue(()) };
                    (node, filter) = (child, rest);
                }
            }
        }
        node.value().into_iter().try_for_each(visit)
    }

    /// Visits this node and everything below it.
    fn visit_all<'a>(&'a self, visit: &mut impl FnMut(&'a T) -> ControlFlow<()>) -> ControlFlow<()> {
        self.value().into_iter().try_for_each(&mut *visit)?;
        let mut path = vec![self.children.iter()];
        while let Some(siblings) = path.last_mut() {
            match siblings.next() {
                Some((_, node)) => {
                    node.value().into_iter().try_for_each(&mut *visit)?;
                    path.push(node.children.iter());
                }
                None => drop(path.pop()),
            }
        }
        Continue(())
    }

    fn value(&self) -> Option<&T> {
        Some(&self.value).filter(|value| !value.is_vacant())
    }
}

/// Left to the compiler, dropping would recurse once per level, and overflow the stack at some depth.
impl<T> Drop for Trie<T> {
    fn drop(&mut self) {
        dismantle(std::mem::take(&mut self.root.children));
    }
}

/// Drops the nodes and everything below them, and says how many that were.
fn dismantle<T>(nodes: LevelMap<Node<T>>) -> usize {
    let mut dropped = 0;
    let mut path = vec![nodes.into_values()];
    while let Some(siblings) = path.last_mut() {
        match siblings.next() {
            Some(node) => {
                dropped += 1;
                path.push(node.children.into_values());
            }
            None => drop(path.pop()),
        }
    }
    dropped
}

/// Removes what `change` left empty, and says how many nodes that were.
fn sweep<T: Slot>(nodes: &mut LevelMap<Node<T>>, change: &mut impl FnMut(&mut T)) -> usize {
    let mut removed = 0;
    nodes.retain(|node| {
        change(&mut node.value);
        removed += sweep(&mut node.children, change);
        let idle = node.is_idle();
        removed += usize::from(idle);
        !idle
    });
    removed
}

/// The levels of a path. An empty one is a level too: `/a` has two (4.7.3).
fn levels(path: &str) -> impl Iterator<Item = &[u8]> {
    path.as_bytes().split(|&byte| byte == b'/')
}

/// The first level, and what follows its separator if it has one.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|&byte| byte == b'/') {
        Some(end) => (&path[..end], Some(&path[end + 1..])),
        None => (path, None),
    }
}
