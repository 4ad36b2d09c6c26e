//! Where a position in the annotated text lies in the text that the client sent.

use smallvec::SmallVec;

/// The edits of one message, in characters, as an error's field `P` counts them. Holds up to four edits without a heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionMap {
    /// Ascending.
    edits: SmallVec<[CharacterEdit; 4]>,
}

/// One edit over the client's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CharacterEdit {
    /// Characters of the client's text in front of it.
    pub at: u32,
    /// Characters of the client's text that are gone.
    pub removed: u32,
    /// Characters that stand in their place.
    pub inserted: u32,
}

impl PositionMap {
    /// Adds an edit behind those that are there.
    pub fn push(&mut self, edit: CharacterEdit) {
        debug_assert!(
            self.edits
                .last()
                .is_none_or(|last| last.at + last.removed <= edit.at),
            "edits come in ascending order"
        );
        self.edits.push(edit);
    }

    /// Forgets all edits.
    pub fn clear(&mut self) {
        self.edits.clear();
    }

    /// Whether every position stays what it is.
    pub fn is_identity(&self) -> bool {
        self.edits.is_empty()
    }

    /// The client's position for a server's; both count characters from 1. Inside an insertion it is the place of the insertion.
    pub fn to_client(&self, position: u32) -> u32 {
        let Some(server) = position.checked_sub(1) else {
            return position;
        };
        // How far the client's text is ahead of the server's, behind the edits walked so far.
        let mut ahead = 0_i64;
        for edit in &self.edits {
            let start = i64::from(edit.at) - ahead;
            let end = start + i64::from(edit.inserted);
            if i64::from(server) < start {
                break;
            }
            if i64::from(server) < end {
                return edit.at.saturating_add(1);
            }
            ahead += i64::from(edit.removed) - i64::from(edit.inserted);
        }
        u32::try_from(i64::from(server) + ahead + 1).unwrap_or(position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_before_a_comment_stay_and_those_behind_it_move() {
        // SELECT 1 FROM t WHERE: an error at the end of input is behind the comment.
        let map = map(&[(21, 0, 8)]);
        assert_eq!(map.to_client(8), 8);
        assert_eq!(map.to_client(21), 21);
        assert_eq!(map.to_client(22), 22);
        assert_eq!(map.to_client(25), 22);
        assert_eq!(map.to_client(30), 22);
    }

    #[test]
    fn each_comment_in_front_counts() {
        let map = map(&[(8, 0, 10), (18, 0, 10)]);
        assert_eq!(map.to_client(30), 19);
        assert_eq!(map.to_client(39), 19);
        assert_eq!(map.to_client(40), 20);
    }

    #[test]
    fn what_was_cut_out_is_counted_again() {
        // "SET a = 1; SELECT x" is sent as " SELECT x /*c*/".
        let map = map(&[(0, 10, 0), (19, 0, 6)]);
        assert_eq!(map.to_client(2), 12);
        assert_eq!(map.to_client(9), 19);
        assert_eq!(map.to_client(16), 20);
    }

    #[test]
    fn an_absurd_position_is_left_alone() {
        assert_eq!(PositionMap::default().to_client(0), 0);
        assert_eq!(map(&[(1, 9, 0)]).to_client(u32::MAX), u32::MAX);
    }

    proptest! {
        #[test]
        fn it_is_the_inverse_of_the_edits(
            steps in prop::collection::vec((0_u32..5, 0_u32..5, 0_u32..5), 0..8),
            tail in 0_u32..5,
        ) {
            let mut map = PositionMap::default();
            let (mut client, mut server) = (0, 0);
            let mut expected = Vec::new();
            for (kept, removed, inserted) in steps {
                for _ in 0..kept {
                    expected.push((server, client));
                    (client, server) = (client + 1, server + 1);
                }
                map.push(CharacterEdit { at: client, removed, inserted });
                (client, server) = (client + removed, server + inserted);
            }
            for _ in 0..=tail {
                expected.push((server, client));
                (client, server) = (client + 1, server + 1);
            }
            for (server, client) in expected {
                prop_assert_eq!(map.to_client(server + 1), client + 1);
            }
        }
    }

    fn map(edits: &[(u32, u32, u32)]) -> PositionMap {
        let mut map = PositionMap::default();
        for &(at, removed, inserted) in edits {
            map.push(CharacterEdit {
                at,
                removed,
                inserted,
            });
        }
        map
    }
}
