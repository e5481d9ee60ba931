use std::fs;

use super::*;

const EOS: u32 = 99;

fn sequences(source: &Source) -> Vec<Vec<u32>> {
    (0..source.n_sequences())
        .map(|at| {
            let sequence = source.sequence(at).unwrap();
            assert_eq!(sequence.len(), source.sequence_len(at));
            sequence.into_owned()
        })
        .collect()
}

/// A pre-tokenized file.
struct Tokens {
    folder: tempfile::TempDir,
    vocab_size: usize,
}

impl Tokens {
    fn new(ids: &[u32], vocab_size: usize) -> Self {
        let bytes: Vec<u8> = match vocab_size > 1 << 16 {
            true => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
            false => (ids.iter())
                .flat_map(|&id| u16::try_from(id).unwrap().to_le_bytes())
                .collect(),
        };
        Self::of_bytes(&bytes, vocab_size)
    }

    fn of_bytes(bytes: &[u8], vocab_size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.bin"), bytes).unwrap();
        Self { folder, vocab_size }
    }

    fn source(&self, cut: Cut) -> Result<Source> {
        let special = SpecialIds {
            eos_token_id: EOS,
            mask_token_id: 0,
        };
        let path = self.folder.path().join("a.bin");
        let file = TokenFile::open(&path, self.vocab_size, special)?;
        Source::of_tokens("a.bin", None, file, cut)
    }
}

#[test]
fn damaged_files_of_ids_are_refused() {
    let cut = |packing| Cut {
        packing,
        sequence_length: 4,
        eos_token_id: EOS,
    };
    let of_bytes = |bytes: &[u8], vocab_size| {
        let source = Tokens::of_bytes(bytes, vocab_size).source(cut(Packing::Packed));
        source.unwrap_err().to_string()
    };
    assert!(of_bytes(&[], 100).contains("no documents"));
    assert!(of_bytes(&[1, 0, 2], 100).contains("3 bytes, no multiple of 2"));
    assert!(of_bytes(&[1, 0, 2, 0, 3, 0], 70_000).contains("6 bytes, no multiple of 4"));
    for (bad, id) in [(100, "id 100 at index 5"), (0, "id 0 at index 5")] {
        let file = Tokens::new(&[1, 2, 3, 4, 5, bad, 7, EOS], 100);
        let source = file.source(cut(Packing::Packed)).unwrap();
        assert_eq!(*source.sequence(0).unwrap(), [1, 2, 3, 4]);
        let error = source.sequence(1).unwrap_err().to_string();
        assert!(error.contains(id), "{error}");
        // Looking for the ends of documents reads everything.
        let error = file
            .source(cut(Packing::Documents))
            .unwrap_err()
            .to_string();
        assert!(error.contains(id), "{error}");
    }
}

#[test]
fn another_file_of_ids_has_another_fingerprint() {
    let cut = Cut {
        packing: Packing::Packed,
        sequence_length: 4,
        eos_token_id: EOS,
    };
    let of = |ids: &[u32]| {
        let file = Tokens::new(ids, 100);
        file.source(cut).unwrap().fingerprint().unwrap()
    };
    assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3]));
    assert_ne!(of(&[1, 2, 3]), of(&[1, 2, 4]));
    assert_ne!(of(&[1, 2, 3]), of(&[1, 2]));
}

#[track_caller]
fn check(packing: Packing, sequence_length: usize, documents: &[&[u32]], expected: &[&[u32]]) {
    let cut = Cut {
        packing,
        sequence_length,
        eos_token_id: EOS,
    };
    let source = Source::new("a.txt", None, documents.iter(), cut);
    assert_eq!(sequences(&source), expected);
    assert_eq!(source.n_documents, documents.len());
    // The same out of a file of ids.
    for vocab_size in [100, 100_000] {
        let ids: Vec<u32> = (documents.iter())
            .flat_map(|document| document.iter().copied().chain([EOS]))
            .collect();
        let file = Tokens::new(&ids, vocab_size);
        let source = file.source(cut).unwrap();
        assert_eq!(sequences(&source), expected);
        assert_eq!(source.n_tokens(), ids.len());
    }
}

#[test]
fn packed_documents_are_joined_and_cut() {
    let documents: &[&[u32]] = &[&[1, 2], &[3], &[4, 5, 6, 7]];
    let expected: &[&[u32]] = &[&[1, 2, EOS, 3], &[EOS, 4, 5, 6], &[7, EOS]];
    check(Packing::Packed, 4, documents, expected);
    check(
        Packing::Packed,
        5,
        documents,
        &[&[1, 2, EOS, 3, EOS], &[4, 5, 6, 7, EOS]],
    );
}

#[test]
fn separate_documents_are_cut_only_where_they_are_too_long() {
    let documents: &[&[u32]] = &[&[1, 2], &[3, 4, 5], &[4, 5, 6, 7, 8]];
    let expected: &[&[u32]] = &[&[1, 2, EOS], &[3, 4, 5, EOS], &[4, 5, 6, 7], &[8, EOS]];
    check(Packing::Documents, 4, documents, expected);
}

struct Texts {
    folder: tempfile::TempDir,
}

impl Texts {
    fn new(name: &str, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        Self { folder }
    }

    fn load(&self, name: &str) -> Result<Data> {
        let text = format!(
            "[data]\ntrain = [\"{name}\"]\nsequence_length = 8\npacking = \"documents\"\n\
             min_character_count = 2\n[train]\nsteps = 1\nbatch_size = 1\n"
        );
        let config = TrainConfig::from_toml(&text, &self.folder.path().join("c.toml"))?;
        let tokenizer = tokenizer_for(&config)?;
        Data::load(&config, &tokenizer, SpecialIds::of(&tokenizer)?)
    }
}

#[test]
fn text_and_json_lines_give_the_same_tokens() {
    let text = Texts::new("a.txt", "春眠\r\n\n  \n春眠晓".as_bytes());
    let json = Texts::new(
        "a.jsonl",
        "{\"text\": \"春眠\"}\n\n{\"id\": 3, \"text\": \"春眠晓\"}\n".as_bytes(),
    );
    let [mut a, b] = [text.load("a.txt"), json.load("a.jsonl")].map(Result::unwrap);
    a.train[0].name = "a.jsonl".to_owned();
    assert_eq!(sequences(&a.train[0]), sequences(&b.train[0]));
    assert_eq!(a.train[0].n_documents, 2);
    assert_eq!(
        a.train[0].n_unknown, 1,
        "a character that occurs once has no id"
    );
    assert_eq!(a.train[0].n_tokens(), 7);
}

#[track_caller]
fn check_error(name: &str, content: &[u8], expected: &str) {
    let texts = Texts::new(name, content);
    let error = texts.load(name).unwrap_err();
    let prefix = format!("{}/", texts.folder.path().display());
    assert_eq!(error.to_string().replace(&prefix, ""), expected);
}

#[test]
fn bad_input_is_an_error_that_names_file_and_line() {
    check_error("a.txt", b"aa\nb\xff\n", "data: a.txt line 2 is not UTF-8");
    let not_json = "data: a.jsonl line 2 is not a JSON object with a string \"text\"";
    check_error("a.jsonl", b"{\"text\": \"aa\"}\n{\"text\": 3}\n", not_json);
    check_error("a.jsonl", b"{\"text\": \"aa\"}\nplain\n", not_json);
    check_error(
        "a.txt",
        b"aa\naa[MASK]a\n",
        "data: a.txt line 2 holds the mask token",
    );
    let unknown_format = "data: a.csv has an unknown format; expected .txt, .jsonl or .bin";
    let no_text =
        "data: a.bin has an unknown format; expected .txt or .jsonl to make a tokenizer of";
    check_error("a.bin", b"aa", no_text);
    check_error("a.csv", b"aa\n", unknown_format);
}

#[test]
fn missing_and_empty_files_are_errors() {
    let texts = Texts::new("a.txt", b"aa\n");
    let error = texts.load("b.txt").unwrap_err();
    assert!(error.to_string().ends_with("b.txt failed"), "{error}");
    assert!(Texts::new("a.txt", b"\n \n").load("a.txt").is_err());
}
