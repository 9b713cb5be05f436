//! The topic policy over real sockets: who may do what in which topic, tokens and their life, rates and refusals.
//!
//! `matrix` states the shipped table for every kind of client; the tests whose names begin with `abuse_NN` are the
//! attacks of that number in the project's list of them, and say what becomes of each.

#[path = "../harness/mod.rs"]
mod harness;

mod http;
mod life;
mod matrix;
mod names;
mod people;
mod rates;
mod tables;
mod tokens;
mod topics;
