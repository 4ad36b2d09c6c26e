//! pgspan
fn main() {}
