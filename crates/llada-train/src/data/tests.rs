use std::fs;

use super::*;
use crate::TokenDType;

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
        let file = TokenFile::open(&path, TokenDType::Auto, self.vocab_size, special)?;
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

/// The ids of a recorded file and of those beside it, or the error.
fn recorded(name: &str, packing: Packing) -> std::result::Result<Vec<Vec<u32>>, String> {
    // Recorded by tools/record_token_files.py with numpy 2.4.6 and megatron-core 0.16.1.
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/data/fixtures")
        .join(name);
    let special = SpecialIds {
        eos_token_id: EOS,
        mask_token_id: 0,
    };
    let cut = Cut {
        packing,
        sequence_length: 100,
        eos_token_id: EOS,
    };
    let file = TokenFile::open(&path, TokenDType::Auto, 100, special);
    let source = file.and_then(|file| Source::of_tokens(name, None, file, cut));
    source
        .map(|source| sequences(&source))
        .map_err(|error| error.to_string())
}

#[test]
fn files_of_numpy_and_megatron_say_how_wide_their_ids_are() {
    for name in [
        "uint16.npy",
        "uint32.npy",
        "int32.npy",
        "int64.npy",
        "megatron-uint16.bin",
        "megatron-int32.bin",
    ] {
        let packed = recorded(name, Packing::Packed);
        assert_eq!(packed, Ok(vec![vec![5, 6, 7, EOS, 8, 9, EOS]]), "{name}");
        let documents = recorded(name, Packing::Documents);
        assert_eq!(
            documents,
            Ok(vec![vec![5, 6, 7, EOS], vec![8, 9, EOS]]),
            "{name}"
        );
    }
    let error = recorded("float64.npy", Packing::Packed).unwrap_err();
    assert!(
        error.contains("type \"<f8\"; ids must be uint16"),
        "{error}"
    );
    let error = recorded("matrix.npy", Packing::Packed).unwrap_err();
    assert!(
        error.contains("the shape (2, 3); ids must be one list"),
        "{error}"
    );
}

/// A file as `write_datafile` of llm.c makes it: 256 integers of header, an EOS before a document.
fn llm_c(version: i32, ids: &[u8]) -> Vec<u8> {
    let mut header = vec![0_i32; 256];
    let width = if version == 7 { 4 } else { 2 };
    header[..3].copy_from_slice(&[
        20_240_520,
        version,
        i32::try_from(ids.len()).unwrap() / width,
    ]);
    let header = header.iter().flat_map(|word| word.to_le_bytes());
    header.chain(ids.iter().copied()).collect()
}

#[test]
fn files_of_llm_c_have_a_header() {
    let cut = Cut {
        packing: Packing::Documents,
        sequence_length: 100,
        eos_token_id: EOS,
    };
    let ids = [EOS, 5, 6, EOS, 7];
    let short: Vec<u8> = ids
        .iter()
        .flat_map(|&id| u16::try_from(id).unwrap().to_le_bytes())
        .collect();
    let long: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    for bytes in [llm_c(1, &short), llm_c(7, &long)] {
        let source = Tokens::of_bytes(&bytes, 100).source(cut).unwrap();
        assert_eq!(sequences(&source), [vec![5, 6, EOS], vec![7]]);
    }
    let of = |bytes: &[u8]| {
        Tokens::of_bytes(bytes, 100)
            .source(cut)
            .unwrap_err()
            .to_string()
    };
    assert!(of(&llm_c(3, &short)).contains("version 3; known are 1"));
    assert!(of(&llm_c(1, &short)[..1030]).contains("says 5 ids, which would be 1034 bytes"));
}

#[test]
fn ids_of_another_width_are_refused_unless_the_configuration_says_it() {
    let cut = Cut {
        packing: Packing::Packed,
        sequence_length: 100,
        eos_token_id: EOS,
    };
    let ids: Vec<u64> = (1..90).collect();
    let short: Vec<u8> = ids
        .iter()
        .flat_map(|&id| u16::try_from(id).unwrap().to_le_bytes())
        .collect();
    let wide: Vec<u8> = ids
        .iter()
        .flat_map(|&id| u32::try_from(id).unwrap().to_le_bytes())
        .collect();
    let widest: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let error = |bytes: &[u8], vocab_size| {
        let source = Tokens::of_bytes(bytes, vocab_size).source(cut);
        source.unwrap_err().to_string()
    };
    assert!(
        error(&wide, 100)
            .contains("look like ids of 4 bytes; say so with data.token_dtype = \"uint32\"")
    );
    assert!(
        error(&widest, 100).contains("ids of 8 bytes; say so with data.token_dtype = \"int64\"")
    );
    assert!(error(&widest, 70_000).contains("data.token_dtype = \"int64\""));
    assert!(error(&short[..176], 70_000).contains("data.token_dtype = \"uint16\""));
    let special = SpecialIds {
        eos_token_id: EOS,
        mask_token_id: 0,
    };
    for (bytes, dtype) in [
        (&short, TokenDType::Uint16),
        (&wide, TokenDType::Uint32),
        (&wide, TokenDType::Int32),
        (&widest, TokenDType::Int64),
    ] {
        let file = Tokens::of_bytes(bytes, 100);
        let path = file.folder.path().join("a.bin");
        let file = TokenFile::open(&path, dtype, 100, special).unwrap();
        let read: Vec<u64> = file
            .read(0..file.len())
            .unwrap()
            .into_iter()
            .map(u64::from)
            .collect();
        assert_eq!(read, ids);
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
    let text = Texts::new("a.txt", "\u{feff}春眠\r\n\n  \n春眠晓".as_bytes());
    let json = Texts::new(
        "a.jsonl",
        "\u{feff}{\"text\": \"春眠\"}\n\n{\"id\": 3, \"text\": \"春眠晓\"}\n".as_bytes(),
    );
    let [mut a, b] = [text.load("a.txt"), json.load("a.jsonl")].map(Result::unwrap);
    a.train[0].name = "a.jsonl".to_owned();
    assert_eq!(sequences(&a.train[0]), sequences(&b.train[0]));
    assert_eq!(b.train[0].unused, [("id".to_owned(), 1)].into());
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
    let unknown_format = "data: a.tsv has an unknown format; expected .txt, .jsonl, .bin or .npy";
    let no_text = "data: a.bin has ids, of which data.tokenizer = \"char\" can make no tokenizer; \
                   name the tokenizer.json that made the ids";
    check_error("a.bin", b"aa", no_text);
    check_error("a.tsv", b"aa\n", unknown_format);
    let empty = "data: a.txt has no documents";
    check_error("a.txt", b"", empty);
    let utf_16 = "data: a.txt line 1 is UTF-16, not UTF-8; save the file as UTF-8";
    check_error("a.txt", b"\xff\xfea\0\n\0", utf_16);
    let array = "data: a.jsonl is one JSON array; one object a line is needed: \
                 `jq -c '.[]' IN > OUT.jsonl`";
    check_error("a.jsonl", b"[{\"text\": \"aa\"}]", array);
}

#[test]
fn a_mask_written_out_is_text_and_an_id_of_the_mask_is_refused() {
    let texts = Texts::new("a.txt", b"aaaaaaaaa\naa[MASK]a\n");
    let data = texts.load("a.txt").unwrap();
    assert!(sequences(&data.train[0]).concat().iter().all(|&id| id != 0));
    assert_eq!(data.train[0].n_unknown, 6);
    // A configuration may make any token the mask.
    let toml =
        "[data]\ntrain = [\"a.txt\"]\nsequence_length = 8\n[train]\nsteps = 1\nbatch_size = 1";
    let config = TrainConfig::from_toml(toml, &texts.folder.path().join("c.toml")).unwrap();
    let tokenizer = tokenizer_for(&config).unwrap();
    let a = tokenizer.encode("a").unwrap()[0];
    let special = SpecialIds::given(&tokenizer, None, Some(a)).unwrap();
    let error = Data::load(&config, &tokenizer, special).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a.txt line 1 holds the mask token"),
        "{error}"
    );
}

#[test]
fn missing_and_empty_files_are_errors() {
    let texts = Texts::new("a.txt", b"aa\n");
    let error = texts.load("b.txt").unwrap_err();
    assert!(error.to_string().ends_with("b.txt failed"), "{error}");
    assert!(Texts::new("a.txt", b"\n \n").load("a.txt").is_err());
}
