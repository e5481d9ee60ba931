//! Deletions and insertions of a step: what they do to values that belong to places, and what stood
//! there before.

use llada::sample::{Edit, StepEvent};

/// Positions in the canvas at which a step has dropped something, with what it was, and at which it
/// has put a mask in; ascending.
fn moves(edits: &[Edit]) -> (Vec<(usize, u32)>, Vec<usize>) {
    let (mut deleted, mut inserted) = (Vec::new(), Vec::new());
    for edit in edits {
        match *edit {
            Edit::Deleted { position, old } => deleted.push((position, old)),
            Edit::Inserted { position } => inserted.push(position),
            Edit::Replaced { .. } => {}
        }
    }
    deleted.sort_unstable();
    inserted.sort_unstable();
    (deleted, inserted)
}

/// Moves the values of a block as its edits have moved its tokens; `start` is its first place, and
/// `new` the value of a mask that was put in.
pub(crate) fn move_with<T: Copy>(values: &mut [T], start: usize, edits: &[Edit], new: T) {
    let (deleted, inserted) = moves(edits);
    let mut moved = values.to_vec();
    for (at, _) in deleted.iter().rev() {
        moved.remove(at - start);
    }
    for at in inserted {
        moved.insert((at - start).min(moved.len()), new);
    }
    moved.resize(values.len(), new);
    values.copy_from_slice(&moved);
}

/// The canvas before a request's first step.
pub(crate) fn before(event: &StepEvent<'_>, mask: u32) -> Vec<u32> {
    let mut canvas = event.canvas.to_vec();
    for revealed in event.revealed {
        canvas[revealed.position] = mask;
    }
    for edit in event.edits {
        if let Edit::Replaced { position, old, .. } = *edit {
            canvas[position] = old;
        }
    }
    let (deleted, inserted) = moves(event.edits);
    let start = event.window.start;
    let block = &mut canvas[event.window.clone()];
    let mut places = block.to_vec();
    for at in inserted.iter().rev() {
        places.remove(at - start);
    }
    for (at, old) in deleted {
        places.insert((at - start).min(places.len()), old);
    }
    // What was cut off at the end of the block had been a mask, too.
    places.resize(block.len(), mask);
    block.copy_from_slice(&places);
    canvas
}

#[cfg(test)]
mod tests {
    //! Tests of what edits move.

    use super::*;

    const MASK: u32 = 99;

    #[track_caller]
    fn check(before_step: &[u32], edits: &[Edit], after_step: &[u32]) {
        let mut moved = before_step.to_vec();
        move_with(&mut moved, 0, edits, MASK);
        assert_eq!(moved, after_step);
    }

    fn deleted(position: usize) -> Edit {
        let old = 0;
        Edit::Deleted { position, old }
    }

    #[test]
    fn values_move_as_tokens_do() {
        let inserted = |position| Edit::Inserted { position };
        check(&[1, 2, 3, 4], &[], &[1, 2, 3, 4]);
        check(&[1, 2, 3, 4], &[deleted(1)], &[1, 3, 4, MASK]);
        check(
            &[1, 2, 3, 4],
            &[deleted(3), deleted(0)],
            &[2, 3, MASK, MASK],
        );
        check(&[1, 2, 3, 4], &[inserted(1)], &[1, MASK, 2, 3]);
        // 1 is dropped, and masks come before 2 and before 4.
        let edits = [inserted(0), inserted(3), deleted(0)];
        check(&[1, 2, 3, 4], &edits, &[MASK, 2, 3, MASK]);
    }

    #[test]
    fn the_first_canvas_is_what_it_was_before_the_first_step() {
        // [7 8 | m m m m]: a, DELETE, SPLIT, c -> [7 8 | a m m c].
        let revealed = [(2, 1), (5, 3)].map(|(position, token)| llada::sample::Revealed {
            position,
            token,
            confidence: 0.5,
        });
        let edits = [
            Edit::Inserted { position: 3 },
            Edit::Deleted {
                position: 3,
                old: MASK,
            },
        ];
        let event = StepEvent {
            request: 0,
            step: 0,
            steps: 4,
            block: 0,
            blocks: 1,
            masked: 2,
            settled: 2..2,
            revealed: &revealed,
            edits: &edits,
            window: 0..6,
            ends_block: false,
            canvas: &[7, 8, 1, MASK, MASK, 3],
        };
        assert_eq!(before(&event, MASK), [7, 8, MASK, MASK, MASK, MASK]);
    }
}
