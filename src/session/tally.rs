//! What happened while requests were judged, until it is counted.

use smallvec::SmallVec;

use crate::session::annotator::SkipReason;

/// What happened while requests were judged. Whoever judges passes it on to the metrics, and empties it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Indexes into [`ANNOTATION_OUTCOMES`], one for each query.
    annotations: SmallVec<[u8; 8]>,
    /// Parse messages of named statements from the client.
    pub client_parses: u64,
    /// Parse messages of named statements to the server.
    pub server_parses: u64,
    /// Bind messages.
    pub binds: u64,
    /// Statements closed on a server to make room.
    pub evictions: u64,
    /// Times that a server was told of a trace ahead of prepared work.
    pub announcements: u64,
    /// Messages with a command on the trace context that was not understood.
    pub unrecognised: u64,
}

/// What can become of a query's annotation: the labels of its metric.
pub const ANNOTATION_OUTCOMES: &[&str] = &[
    "annotated",
    "answered",
    "disabled",
    "nothing_to_say",
    "already_commented",
    "empty",
    "nul",
    "unterminated",
    "client_encoding",
    "too_long",
    "utility",
    "prepare_or_declare",
    "replication",
    "strings_differ",
    "hint_in_front",
];

const ANNOTATED: u8 = 0;
const ANSWERED: u8 = 1;
const FIRST_REASON: u8 = 2;

impl Tally {
    /// Nothing of prepared statements is to be counted.
    pub fn forget_prepared(&mut self) {
        (self.client_parses, self.server_parses, self.binds) = (0, 0, 0);
    }

    /// A query got its comment.
    pub fn on_annotated(&mut self) {
        self.annotations.push(ANNOTATED);
    }

    /// A query was answered by the proxy.
    pub fn on_answered(&mut self) {
        self.annotations.push(ANSWERED);
    }

    /// A query was left alone.
    pub fn on_skipped(&mut self, reason: SkipReason) {
        self.annotations.push(FIRST_REASON + reason as u8);
    }

    /// What became of the annotations: indexes into [`ANNOTATION_OUTCOMES`].
    pub fn take_annotations(&mut self) -> impl Iterator<Item = usize> + '_ {
        self.annotations.drain(..).map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_label() {
        let reasons = [
            SkipReason::Disabled,
            SkipReason::NothingToSay,
            SkipReason::AlreadyCommented,
            SkipReason::Empty,
            SkipReason::Nul,
            SkipReason::Unterminated,
            SkipReason::ClientEncoding,
            SkipReason::TooLong,
            SkipReason::Utility,
            SkipReason::PrepareOrDeclare,
            SkipReason::Replication,
            SkipReason::StringsDiffer,
            SkipReason::HintInFront,
        ];
        let mut tally = Tally::default();
        reasons
            .into_iter()
            .for_each(|reason| tally.on_skipped(reason));
        let labels: Vec<&str> = tally
            .take_annotations()
            .map(|at| ANNOTATION_OUTCOMES[at])
            .collect();
        assert_eq!(labels, reasons.map(SkipReason::as_str));
    }
}
