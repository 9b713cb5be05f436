//! Topic names and filters (4.7): validity and matching.
