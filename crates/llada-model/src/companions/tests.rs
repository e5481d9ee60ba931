use super::*;

const CODE: &str = r#"{"AutoConfig": "configuration_llada.LLaDAConfig",
    "AutoModel": "modeling_llada.LLaDAModelLM", "AutoTokenizer": [null, "tok.Fast"]}"#;

/// What is carried along out of a folder with these files, and what is missing.
#[track_caller]
fn check(auto_map: &str, files: &[&str], carried: &[&str], missing: &[&str]) {
    let [source, target] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for file in files {
        let path = source.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    let json = format!(
        r#"{{"d_model": 8, "n_heads": 2, "n_layers": 1, "vocab_size": 9, "mask_token_id": 0,
            "eos_token_id": 1, "auto_map": {auto_map}}}"#
    );
    let mut config = ModelConfig::from_json(json.as_bytes(), Path::new("config.json")).unwrap();
    let target = target.path().join("new");
    let found = carry_along(Some(source.path()), &target, &mut config).unwrap();
    assert_eq!(found, missing);
    assert_eq!(config.other.contains_key(AUTO_MAP), missing.is_empty());
    for file in carried {
        assert_eq!(fs::read_to_string(target.join(file)).unwrap(), *file);
    }
    let n_files = |folder: &Path| match fs::read_dir(folder) {
        Ok(entries) => entries
            .filter(|e| e.as_ref().unwrap().path().is_file())
            .count(),
        Err(_) => 0,
    };
    let n = n_files(&target) + n_files(&target.join(TEMPLATES));
    assert_eq!(n, carried.len());
}

#[test]
fn what_belongs_to_text_generation_and_code_is_carried_along_and_nothing_else() {
    let kept = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "additional_chat_templates/rag.jinja",
        "generation_config.json",
        "configuration_llada.py",
        "modeling_llada.py",
        "tok.py",
        "imported.py",
    ];
    let left = [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "adapter_config.json",
        "README.md",
        "additional_chat_templates/note.txt",
    ];
    check(CODE, &[&kept[..], &left].concat(), &kept, &[]);
}

#[test]
fn auto_map_goes_if_its_code_is_not_there() {
    let files = ["generation_config.json", "configuration_llada.py"];
    let missing = ["modeling_llada.py", "tok.py"];
    check(CODE, &files, &["generation_config.json"], &missing);
    // Code on the Hub is found there, and a folder without code has none to carry.
    check(r#"{"AutoModel": "a/b--modeling.M"}"#, &["x.py"], &[], &[]);
    let [mut config] = [(); 1].map(|()| crate::preset("llada-25m").unwrap());
    let map = serde_json::from_str(CODE).unwrap();
    config.other.insert(AUTO_MAP.to_owned(), map);
    let target = tempfile::tempdir().unwrap();
    let missing = carry_along(None, target.path(), &mut config).unwrap();
    assert_eq!(missing.len(), 3);
    assert!(!config.other.contains_key(AUTO_MAP));
}
