//! Links that die without a word.
