//! Where a message begins and ends.

/// A whole message after the startup phase: its tag and what follows the length word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The first byte, which says what kind of message it is; its meaning depends on the direction.
    pub tag: u8,
    /// Everything behind the length word.
    pub body: &'a [u8],
}
