//! Scripts for the hub as a whole: who connects, subscribes, publishes and goes, and what each of them gets.

mod collecting;
mod concerned;
mod matching;
mod messages;
mod races;
mod rooms;
mod routing;
mod sessions;
mod waiting;
