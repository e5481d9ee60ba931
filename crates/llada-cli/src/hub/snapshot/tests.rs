use super::{Sibling, needed};

fn siblings(names: &[&str]) -> Vec<Sibling> {
    let sibling = |name: &&str| Sibling {
        rfilename: (*name).to_owned(),
    };
    names.iter().map(sibling).collect()
}

#[test]
fn a_model_needs_its_weights_and_what_explains_them() {
    let siblings = siblings(&[
        ".gitattributes",
        "README.md",
        "model-00002-of-00002.safetensors",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "pytorch_model.bin",
        "model.gguf",
        "original/model.safetensors",
        "tokenizer_config.json",
        "config.json",
        "modeling_llada.py",
        "a b.safetensors",
        ".safetensors",
    ]);
    let names = needed(&siblings).expect("a model");
    assert_eq!(
        Vec::from_iter(names),
        [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
}

#[track_caller]
fn check_refused(name: &str, part: &str) {
    let siblings = siblings(&["config.json", "model.safetensors", name]);
    let error = needed(&siblings).expect_err("a hostile list");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in [
        "../../x.safetensors",
        "..",
        "a/../../config.json",
        "/etc/x.safetensors",
        "..\\x.safetensors",
        "\\x.safetensors",
    ] {
        check_refused(name, "leads out");
    }
}

#[test]
fn a_repo_without_a_model_is_refused() {
    for names in [
        &["config.json", "pytorch_model.bin"][..],
        &["model.safetensors"],
        &[],
    ] {
        let siblings = siblings(names);
        let error = needed(&siblings).expect_err("no model");
        assert!(error.to_string().contains("no model"), "{error}");
    }
}
