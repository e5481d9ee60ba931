//! The embedded model with its instruction adapter.

use std::path::Path;

use llada::text::Message;
use llada::{Checkpoint, CpuConfig, Device, Overrides, Precision};

const MIB: u64 = 1 << 20;

fn device() -> Device {
    Device::cpu(CpuConfig::default()).unwrap()
}

fn folder() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../assets/poems/adapter"
    ))
}

#[test]
fn the_bytes_of_an_adapter_are_its_folder() {
    let embedded = Checkpoint::embedded_instruct().expect("it is in the binary");
    let from_folder = Checkpoint::embedded().and_then(|poet| poet.with_adapter(folder(), 1.0));
    let from_folder = from_folder.expect("a folder of PEFT");
    let answer = |checkpoint: &Checkpoint| {
        let llada = checkpoint.frozen(&device(), Precision::F32);
        let usual = Overrides {
            gen_length: Some(12),
            ..Overrides::default()
        };
        let answer = llada
            .expect("a model")
            .generate("下句：海内存知己，", &usual);
        answer.expect("an answer").output.tokens
    };
    assert_eq!(answer(&embedded), answer(&from_folder));
    let bytes = std::fs::metadata(folder().join("adapter_model.safetensors"));
    assert!(bytes.expect("a file").len() <= MIB);
}

#[test]
fn the_template_is_the_last_message_of_the_user() {
    let template = Checkpoint::embedded_instruct().and_then(|poet| poet.template());
    let template = template.expect("it is in the binary");
    let render = |messages: &[Message]| template.render(messages, true);
    let talk = [
        Message::new("system", "s"),
        Message::user("上句：更上一层楼。"),
        Message::new("assistant", "欲穷千里目，"),
        Message::user(" 下句：\n海内存知己， "),
    ];
    assert_eq!(render(&talk).expect("a prompt"), " 下句：\n海内存知己， ");
    assert_eq!(render(&talk[..3]).expect("a prompt"), "上句：更上一层楼。");
    let error = render(&talk[..1]).expect_err("nothing was asked");
    let error = format!("{:#}", anyhow::Error::from(error));
    assert!(error.contains("last message of the user"), "{error}");
}

#[test]
fn an_instruction_is_followed_to_its_end() {
    let llada = Checkpoint::embedded_instruct()
        .and_then(|poet| poet.frozen(&device(), Precision::F32))
        .expect("it is in the binary");
    let answer = llada.generate("五言藏头：春夏秋冬。", &Overrides::default());
    let answer = answer.expect("an answer");
    // Its EOS ends it, not its room.
    let n = answer.text.chars().count();
    assert!(n < answer.output.answer().len(), "{}", answer.text);
    let lines: Vec<&str> = answer.text.split_terminator(['，', '。']).collect();
    let heads: String = lines
        .iter()
        .filter_map(|line| line.chars().next())
        .collect();
    assert_eq!(heads, "春夏秋冬", "{}", answer.text);
}
