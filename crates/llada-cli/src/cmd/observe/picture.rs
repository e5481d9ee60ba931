//! The picture of a step: its canvas, and what the step has changed.

use console::{StyledObject, measure_text_width, style};
use llada::Llada;
use llada::sample::{Edit, StepEvent};

use super::token_text;

/// What a step has done to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing.
    Kept,
    /// A mask became a token.
    Revealed,
    /// Another token took the place of one, or a mask was put in.
    Edited,
    /// A token that was dropped: the picture alone still has it.
    Deleted,
}

/// Places of the canvas from `first` on, with what stood there and was dropped.
pub(super) fn cells(llada: &Llada, event: &StepEvent<'_>, first: usize) -> Vec<(String, Mark)> {
    let mask = llada.info().mask_token_id;
    let shown = |id: u32| match id == mask {
        true => "□".to_owned(),
        false => llada.tokenizer.decode(&[id], true).unwrap_or_default(),
    };
    let cell = |(position, &id): (usize, &u32)| {
        let is_revealed = event.revealed.iter().any(|new| new.position == position);
        let is_edited = event.edits.iter().any(|edit| match *edit {
            Edit::Replaced { position: at, .. } | Edit::Inserted { position: at } => at == position,
            Edit::Deleted { .. } => false,
        });
        let mark = match (is_revealed, is_edited) {
            (true, _) => Mark::Revealed,
            (false, true) => Mark::Edited,
            (false, false) => Mark::Kept,
        };
        (shown(id), mark)
    };
    let canvas = event.canvas.iter().enumerate().skip(first);
    let mut cells: Vec<_> = canvas.map(cell).collect();
    // From the last one, so that the places of those before it stay as they are.
    let mut deleted = deletions(event.edits);
    deleted.reverse();
    for (at, id) in deleted {
        let at = at.saturating_sub(first).min(cells.len());
        cells.insert(at, (shown(id), Mark::Deleted));
    }
    cells
}

/// Tokens that were dropped, ascending, and the places before which they would stand after the step.
fn deletions(edits: &[Edit]) -> Vec<(usize, u32)> {
    let deleted = edits.iter().filter_map(|edit| match *edit {
        Edit::Deleted { position, old } => Some((position, old)),
        _ => None,
    });
    let mut inserted: Vec<usize> = (edits.iter())
        .filter_map(|edit| match *edit {
            Edit::Inserted { position } => Some(position),
            _ => None,
        })
        .collect();
    inserted.sort_unstable();
    let mut places: Vec<(usize, u32)> = deleted.collect();
    places.sort_unstable();
    for (n, (at, _)) in places.iter_mut().enumerate() {
        *at -= n.min(*at);
        for &place in &inserted {
            *at += usize::from(place <= *at);
        }
    }
    places
}

/// The edits of a step in a line of text, where there is no color.
pub(super) fn edits_text(llada: &Llada, edits: &[Edit]) -> String {
    let edit = |edit: &Edit| match *edit {
        Edit::Replaced { old, new, .. } => {
            format!("{}→{}", token_text(llada, old), token_text(llada, new))
        }
        Edit::Deleted { old, .. } => format!("−{}", token_text(llada, old)),
        Edit::Inserted { .. } => "+□".to_owned(),
    };
    let edits: Vec<String> = edits.iter().map(edit).collect();
    match edits.is_empty() {
        true => String::new(),
        false => format!(" [{}]", edits.join(" ")),
    }
}

/// Lines of at most `columns` columns, those after the first indented by the width of `head`; what
/// the step has changed stands out. Lines are broken here, as a terminal would leave a column free
/// before a wide character, and the picture could not be drawn over.
pub(super) fn wrap(head: &str, cells: &[(String, Mark)], columns: usize) -> Vec<String> {
    let indent = measure_text_width(head);
    let (mut lines, mut line, mut width) = (Vec::new(), head.to_owned(), indent);
    for (text, mark) in cells {
        let text = text.replace('\n', "⏎");
        let text_width = measure_text_width(&text);
        if width + text_width >= columns && width > indent {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            width = indent;
        }
        width += text_width;
        line.push_str(&painted(text, *mark));
    }
    lines.push(line);
    lines
}

fn painted(text: String, mark: Mark) -> String {
    let paint: fn(StyledObject<String>) -> StyledObject<String> = match mark {
        Mark::Kept => return text,
        Mark::Revealed => |text| text.green().bold(),
        Mark::Edited => |text| text.yellow().bold(),
        Mark::Deleted => |text| text.red().strikethrough(),
    };
    paint(style(text)).force_styling(true).to_string()
}

#[cfg(test)]
mod tests {
    //! Tests of the live picture.

    use super::*;

    #[test]
    fn lines_are_broken_before_the_last_column_and_indented() {
        let cells: Vec<(String, Mark)> = "春眠不觉晓处处闻啼鸟"
            .chars()
            .map(|c| (c.into(), Mark::Kept))
            .collect();
        // A head of three columns and characters of two: four of them end in column 11 of 12.
        assert_eq!(
            wrap("1/9", &cells, 12),
            ["1/9春眠不觉", "   晓处处闻", "   啼鸟"]
        );
        assert_eq!(wrap("1/9", &cells, 80).len(), 1);
        // A terminal that is too narrow for anything still shows a character a line.
        assert_eq!(wrap("1/9", &cells, 1).len(), 10);
    }

    #[test]
    fn what_was_dropped_stands_where_it_was() {
        // [a b c d] -> b and d dropped: [a c □ □].
        let deleted = |position, old| Edit::Deleted { position, old };
        let edits = [deleted(1, 7), deleted(3, 8)];
        assert_eq!(deletions(&edits), [(1, 7), (2, 8)]);
        // [a b c d] -> a mask before a, c dropped: [□ a b d].
        let edits = [Edit::Inserted { position: 0 }, deleted(2, 9)];
        assert_eq!(deletions(&edits), [(3, 9)]);
    }

    #[test]
    fn every_kind_of_change_has_a_color_of_its_own() {
        let marks = [Mark::Kept, Mark::Revealed, Mark::Edited, Mark::Deleted];
        let painted: Vec<String> = marks
            .iter()
            .map(|mark| painted("a".to_owned(), *mark))
            .collect();
        for (at, text) in painted.iter().enumerate() {
            assert_eq!(measure_text_width(text), 1);
            assert!(!painted[..at].contains(text));
        }
    }
}
