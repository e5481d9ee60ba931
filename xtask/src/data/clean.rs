//! From an edited text to the bare poem.

#[cfg(test)]
mod tests;

/// Marks that end a sentence.
const SENTENCE_ENDS: [char; 4] = ['。', '？', '！', '；'];
/// Marks that end a clause within a sentence.
const CLAUSE_ENDS: [char; 2] = ['，', '：'];

/// Whether `mark` ends a sentence.
pub(crate) fn ends_sentence(mark: char) -> bool {
    SENTENCE_ENDS.contains(&mark)
}

/// Whether `mark` ends a clause, as a sentence end does too.
pub(crate) fn ends_clause(mark: char) -> bool {
    ends_sentence(mark) || CLAUSE_ENDS.contains(&mark)
}

/// Whether `character` is a Chinese character.
pub(crate) fn is_han(character: char) -> bool {
    matches!(character,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}' | '〇')
}

/// The poem in `text`: notes removed, punctuation made uniform.
///
/// `None` if characters are lost (□, 囗, a description such as `{炙火=肉}`), if brackets do not
/// match, or if anything remains that is neither a Chinese character nor punctuation.
pub(crate) fn clean(text: &str) -> Option<String> {
    let text = without_notes(text)?;
    let mut poem = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Restored by an editor, a title or speech: the words stay, the marks go.
            '[' | ']' | '［' | '］' | '〖' | '〗' | '《' | '》' | '〈' | '〉' | '「' | '」'
            | '『' | '』' | '“' | '”' | '‘' | '’' => {}
            _ if character.is_whitespace() => {}
            '囗' => return None,
            _ if is_han(character) => poem.push(character),
            _ => push_mark(&mut poem, mark(character)?),
        }
    }
    let end = poem.trim_end_matches(|last| !is_han(last)).len();
    let last = poem[end..]
        .chars()
        .next()
        .filter(|&last| last == '？' || last == '！');
    poem.truncate(end);
    poem.push(last.unwrap_or('。'));
    (end > 0).then(|| close_couplets(poem))
}

/// In a poem of regular form a couplet ends with the end of a sentence and its first clause does
/// not, whatever the edition has there.
fn close_couplets(poem: String) -> String {
    if !is_regular(&poem) {
        return poem;
    }
    let mut closes = true;
    let close = |mark| {
        closes = if ends_clause(mark) { !closes } else { closes };
        match mark {
            '，' | '：' | '；' if closes => '。',
            '。' | '：' | '；' if !closes => '，',
            mark => mark,
        }
    };
    poem.chars().map(close).collect()
}

/// `text` without what stands in round brackets, which may nest; `None` if they do not match.
fn without_notes(text: &str) -> Option<String> {
    let mut depth = 0usize;
    let mut bare = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '（' | '(' => depth += 1,
            '）' | ')' => depth = depth.checked_sub(1)?,
            _ if depth == 0 => bare.push(character),
            _ => {}
        }
    }
    (depth == 0).then_some(bare)
}

/// The uniform form of a punctuation mark.
fn mark(character: char) -> Option<char> {
    Some(match character {
        '，' | ',' => '，',
        '。' | '．' | '.' | '｡' => '。',
        '？' | '?' => '？',
        '！' | '!' => '！',
        '；' | ';' => '；',
        '：' | ':' => '：',
        '、' => '、',
        _ => return None,
    })
}

/// Appends a mark; none begins a poem, and of two in a row the one that ends more remains.
fn push_mark(poem: &mut String, mark: char) {
    let rank = |mark| usize::from(ends_clause(mark)) + usize::from(ends_sentence(mark));
    match poem.chars().last() {
        None => {}
        Some(last) if is_han(last) => poem.push(mark),
        Some(last) if rank(last) < rank(mark) => {
            poem.pop();
            poem.push(mark);
        }
        Some(_) => {}
    }
}

/// The sentences of a poem, each with the mark that ends it.
pub(crate) fn sentences(poem: &str) -> Vec<&str> {
    poem.split_inclusive(ends_sentence).collect()
}

/// The clauses of a poem, without punctuation at their ends.
pub(crate) fn clauses(poem: &str) -> Vec<&str> {
    poem.split(ends_clause)
        .filter(|clause| !clause.is_empty())
        .collect()
}

/// The poem in pieces of at most `limit` characters, cut at sentence ends into parts of about the
/// same length; `None` if one sentence alone is longer.
pub(crate) fn cut(poem: &str, limit: usize) -> Option<Vec<String>> {
    let sentences: Vec<(&str, usize)> = sentences(poem)
        .into_iter()
        .map(|sentence| (sentence, sentence.chars().count()))
        .collect();
    if sentences.iter().any(|&(_, length)| length > limit) {
        return None;
    }
    let total: usize = sentences.iter().map(|&(_, length)| length).sum();
    (total.div_ceil(limit)..=sentences.len()).find_map(|n_pieces| {
        let mut pieces = vec![String::new(); n_pieces];
        let mut lengths = vec![0; n_pieces];
        let mut start = 0;
        for &(sentence, length) in &sentences {
            // The piece in which the middle of the sentence falls.
            let piece = (2 * start + length) * n_pieces / (2 * total);
            pieces[piece].push_str(sentence);
            lengths[piece] += length;
            start += length;
        }
        let fits = lengths.iter().all(|&length| 0 < length && length <= limit);
        fits.then_some(pieces)
    })
}

/// Whether the poem has an even number of clauses, at least four, all of five or all of seven
/// characters.
fn is_regular(poem: &str) -> bool {
    let lengths: Vec<usize> = clauses(poem)
        .iter()
        .map(|clause| clause.chars().count())
        .collect();
    let uniform = [5, 7]
        .iter()
        .any(|form| lengths.iter().all(|length| length == form));
    uniform && lengths.len() >= 4 && lengths.len().is_multiple_of(2) && !poem.contains('、')
}

/// The couplets of a poem of regular form; none of any other poem.
pub(crate) fn regular_couplets(poem: &str) -> Vec<String> {
    if !is_regular(poem) {
        return Vec::new();
    }
    let verses: Vec<&str> = poem.split_inclusive(ends_clause).collect();
    verses.chunks(2).map(<[&str]>::concat).collect()
}
