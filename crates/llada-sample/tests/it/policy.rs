//! What a request is by default.

use llada_diffusion::PredictorInfo;
use llada_sample::{
    Alg, AnswerLength, CacheMode, Horizon, Overrides, Policy, Process, Protocol, RefreshPolicy,
    Request, SampleConfig, Task,
};

const EOS: u32 = 14;
const MASK: u32 = 15;

fn published() -> Policy {
    Policy::new(PredictorInfo::new(16, MASK, EOS, 100))
}

fn poems() -> Policy {
    Policy {
        unk_token_id: Some(13),
        whole_documents: true,
        answer_length: AnswerLength::Prompts(3),
        ..published()
    }
}

fn prompt(length: usize) -> Task {
    Request::generate(vec![1; length], SampleConfig::default()).task
}

fn text(canvas: &[u32]) -> Task {
    Request::infill(canvas.to_vec(), SampleConfig::default()).task
}

fn suffix(request: &Request) -> &[u32] {
    match &request.task {
        Task::Generate { suffix, .. } | Task::Infill { suffix, .. } => suffix,
    }
}

#[test]
fn an_answer_is_as_long_as_usual_or_as_there_is_room() {
    let gen_length = |policy: Policy, length| {
        let request = policy.request(prompt(length), true, &Overrides::default());
        request.unwrap().config.gen_length
    };
    assert_eq!(gen_length(published(), 5), 64);
    assert_eq!(gen_length(published(), 70), 30);
    assert_eq!(gen_length(published(), 100), 1);
    assert_eq!(gen_length(poems(), 6), 18);
    assert_eq!(gen_length(poems(), 40), 60);
}

#[test]
fn a_model_of_whole_documents_is_shown_the_end_of_a_text() {
    let overrides = Overrides::default();
    let end = |policy: &Policy, task, is_document| {
        let request = policy.request(task, is_document, &overrides).unwrap();
        suffix(&request).to_vec()
    };
    assert_eq!(end(&poems(), prompt(5), true), [EOS]);
    assert_eq!(end(&poems(), text(&[1, MASK]), true), [EOS]);
    // Ids are used as they are.
    assert!(end(&poems(), prompt(5), false).is_empty());
    // No room: 40 tokens and 60 of the answer.
    assert!(end(&poems(), prompt(40), true).is_empty());
    assert!(end(&published(), prompt(5), true).is_empty());
    let twin = Policy {
        info: poems().info.autoregressive(),
        ..poems()
    };
    assert!(end(&twin, prompt(5), true).is_empty());
}

#[test]
fn what_a_text_never_holds_is_never_chosen() {
    let never = |policy: Policy, task, overrides: &Overrides| {
        let config = policy.request(task, true, overrides).unwrap().config;
        (config.logits_eos_inf, config.suppress_mask)
    };
    let usual = Overrides::default();
    assert_eq!(never(poems(), prompt(5), &usual), (vec![13], true));
    assert_eq!(never(poems(), text(&[MASK]), &usual), (vec![13, EOS], true));
    assert_eq!(never(published(), prompt(5), &usual), (vec![], false));
    assert_eq!(never(published(), text(&[MASK]), &usual), (vec![EOS], true));
    let no_eos = Overrides {
        logits_eos_inf: true,
        ..Overrides::default()
    };
    assert_eq!(never(published(), prompt(5), &no_eos), (vec![EOS], false));
}

#[test]
fn steps_are_one_a_mask_and_fixed_tokens_have_quotas_of_the_block() {
    let request = published().request(text(&[1, MASK, 2, MASK]), true, &Overrides::default());
    let config = request.unwrap().config;
    assert_eq!(
        (config.steps, config.gen_length, config.process),
        (2, 2, Process::Quota)
    );
    let task = Task::Generate {
        prompt: vec![1],
        suffix: Vec::new(),
        constraints: vec![(1, 2)],
    };
    let config = |overrides: &Overrides| {
        let request = published().request(task.clone(), true, overrides);
        request.unwrap().config
    };
    assert_eq!(config(&Overrides::default()).process, Process::BlockQuota);
    let threshold = Overrides {
        process: Some(Process::Threshold(0.9)),
        cache: Some(CacheMode::Activity),
        ..Overrides::default()
    };
    let config = config(&threshold);
    assert_eq!(config.process, Process::Threshold(0.9));
    let refresh = RefreshPolicy {
        refresh_interval: Some(8),
        ..RefreshPolicy::default()
    };
    assert_eq!(config.refresh, refresh);
}

#[test]
fn an_autoregressive_model_has_its_cache_and_no_steps() {
    let policy = Policy::new(published().info.autoregressive());
    let request = policy
        .request(prompt(3), true, &Overrides::default())
        .unwrap();
    assert_eq!(request.config.cache, CacheMode::Prefix);
    let steps = Overrides {
        steps: Some(3),
        ..Overrides::default()
    };
    let error = policy.request(prompt(3), true, &steps).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("request 0: steps cannot be used"),
        "{error}"
    );
}

#[test]
fn the_memory_of_a_request_is_known_before_it_starts() {
    let info = PredictorInfo {
        kv_cache_bytes: 64,
        ..published().info
    };
    let memory = |cache, gen_length| {
        let config = SampleConfig {
            cache,
            gen_length,
            ..SampleConfig::default()
        };
        Request::generate(vec![1; 6], config).memory(&info)
    };
    let [plain, cached] = [CacheMode::None, CacheMode::Dual].map(|cache| memory(cache, 10));
    assert_eq!((plain.cache_bytes, cached.cache_bytes), (0, 16 * (64 + 1)));
    assert_eq!(plain.canvas_bytes, cached.canvas_bytes);
    let steps = SampleConfig::default().steps * size_of::<usize>();
    let longer = memory(CacheMode::None, 26).canvas_bytes;
    assert_eq!(longer - steps, 2 * (plain.canvas_bytes - steps));
    assert_eq!(memory(CacheMode::Dual, usize::MAX).cache_bytes, usize::MAX);
}

#[test]
fn what_an_autoregressive_model_cannot_do_is_refused_at_once() {
    let policy = Policy::new(published().info.autoregressive());
    let refused = |task: Task, overrides: &Overrides| {
        let error = policy
            .request(task, true, overrides)
            .unwrap_err()
            .to_string();
        error.split(' ').nth(2).map(str::to_owned)
    };
    let usual = Overrides::default();
    assert_eq!(refused(text(&[1, MASK]), &usual).as_deref(), Some("infill"));
    let task = Task::Generate {
        prompt: vec![1],
        suffix: Vec::new(),
        constraints: vec![(0, 2)],
    };
    assert_eq!(refused(task, &usual).as_deref(), Some("constraints"));
    let windowed = Overrides {
        suffix_window: Some(3),
        ..Overrides::default()
    };
    assert_eq!(
        refused(prompt(3), &windowed).as_deref(),
        Some("suffix_window")
    );
}

#[test]
fn a_text_without_masks_is_refused_as_such() {
    let toy = llada_testkit::ToyPredictor::new(16, 32, 0);
    let policy = Policy::new(llada_diffusion::MaskPredictor::info(&toy));
    let request = policy
        .request(text(&[1, 2]), true, &Overrides::default())
        .unwrap();
    let error = llada_sample::Session::new(&toy)
        .submit(request)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "request 0: the text to fill in has no mask"
    );
}

#[test]
fn all_ends_of_an_answer_are_kept_out_or_kept_last() {
    let policy = Policy {
        further_eos_token_ids: vec![11, 12],
        eot_token_id: Some(12),
        ..published()
    };
    let overrides = Overrides {
        confidence_eos_eot_inf: true,
        early_stop: true,
        ..Overrides::default()
    };
    let config = policy
        .request(text(&[1, MASK]), false, &overrides)
        .unwrap()
        .config;
    assert_eq!(config.logits_eos_inf, [EOS, 11, 12]);
    assert_eq!(config.confidence_eos_eot_inf, [EOS, 11, 12]);
    assert_eq!(config.further_eos_token_ids, [11, 12]);
}

fn of(protocol: Protocol) -> Policy {
    let block_size = match protocol {
        Protocol::Llada | Protocol::VariableLength | Protocol::Dream => None,
        _ => std::num::NonZeroUsize::new(32),
    };
    let info = PredictorInfo {
        block_size,
        kv_cache_bytes: 8,
        ..PredictorInfo::new(16, MASK, EOS, 4100)
    };
    Policy {
        protocol,
        ..Policy::new(info)
    }
}

const REWRITING: Protocol = Protocol::Rewriting {
    delete_token_id: 12,
    split_token_id: 11,
};

#[test]
fn a_protocol_has_its_published_defaults() {
    #[track_caller]
    fn check(protocol: Protocol, expected: &SampleConfig) {
        let request = of(protocol).request(prompt(5), true, &Overrides::default());
        assert_eq!(&request.unwrap().config, expected);
    }
    check(
        Protocol::Llada,
        &SampleConfig {
            steps: 64,
            gen_length: 64,
            block_length: None,
            ..SampleConfig::default()
        },
    );
    let by_blocks = SampleConfig {
        steps: 32,
        gen_length: 2048,
        block_length: Some(32),
        ..SampleConfig::default()
    };
    check(
        Protocol::VariableLength,
        &SampleConfig {
            horizon: Horizon::Block,
            early_stop: true,
            ..by_blocks.clone()
        },
    );
    let aligned = |process| SampleConfig {
        horizon: Horizon::AlignedBlock,
        process,
        // It changes nothing.
        cache: CacheMode::Prefix,
        ..by_blocks.clone()
    };
    check(
        Protocol::BlockDiffusion,
        &aligned(Process::BlockDiffusion {
            threshold: 0.95,
            minimal_topk: 1,
        }),
    );
    check(
        Protocol::Editing,
        &aligned(Process::Editing {
            threshold: 0.95,
            editing_threshold: 0.9,
            max_post_steps: 16,
            num_to_transfer: 1,
        }),
    );
    check(
        REWRITING,
        &aligned(Process::Rewriting {
            threshold: 0.5,
            editing_threshold: 0.0,
            max_post_steps: 16,
            delete_token_id: 12,
            split_token_id: 11,
        }),
    );
    check(
        Protocol::Dream,
        &SampleConfig {
            steps: 512,
            gen_length: 64,
            block_length: None,
            process: Process::Timestep {
                eps: 1e-3,
                alg: Alg::Origin,
                alg_temp: 0.0,
            },
            ..SampleConfig::default()
        },
    );
}

#[test]
fn overrides_change_a_protocol() {
    let config = |protocol, overrides: &Overrides| {
        let request = of(protocol).request(prompt(5), true, overrides);
        request.unwrap().config
    };
    let threshold = Overrides {
        process: Some(Process::Threshold(0.7)),
        editing_threshold: Some(0.5),
        ..Overrides::default()
    };
    let expected = Process::Editing {
        threshold: 0.7,
        editing_threshold: 0.5,
        max_post_steps: 16,
        num_to_transfer: 1,
    };
    assert_eq!(config(Protocol::Editing, &threshold).process, expected);
    let fixed = Overrides {
        variable_length: Some(false),
        ..Overrides::default()
    };
    let appended = Overrides {
        variable_length: Some(true),
        gen_length: Some(5000),
        block_length: Some(16),
        ..Overrides::default()
    };
    assert_eq!(
        config(Protocol::VariableLength, &fixed),
        config(Protocol::Llada, &Overrides::default())
    );
    let config = config(Protocol::Llada, &appended);
    // What there is no room for is left out; a block has as many steps as tokens.
    assert_eq!((config.gen_length, config.steps), (4095, 16));
    assert_eq!(config.horizon, Horizon::Block);
    // A short answer is one block.
    let short = Overrides {
        gen_length: Some(10),
        ..Overrides::default()
    };
    let request = of(Protocol::VariableLength).request(prompt(5), true, &short);
    let config = request.unwrap().config;
    assert_eq!(
        (config.gen_length, config.block_length, config.steps),
        (10, Some(10), 10)
    );
    // A text to fill in has its length.
    let infill = of(Protocol::VariableLength).request(text(&[1, MASK]), true, &appended);
    assert_eq!(infill.unwrap().config.horizon, Horizon::Canvas);
    // The context has room for whole blocks alone.
    assert_eq!(of(Protocol::Editing).gen_length(4000), 96);
    // With guidance there is no cache.
    let guided = Overrides {
        cfg_scale: 1.0,
        ..Overrides::default()
    };
    let request = of(Protocol::Editing).request(prompt(5), true, &guided);
    assert_eq!(request.unwrap().config.cache, CacheMode::None);
}

#[test]
fn settings_of_another_protocol_are_refused() {
    #[track_caller]
    fn check(protocol: Protocol, change: impl Fn(&mut Overrides), message: &str) {
        let mut overrides = Overrides::default();
        change(&mut overrides);
        let error = of(protocol)
            .request(prompt(5), true, &overrides)
            .unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    check(
        Protocol::Llada,
        |overrides| overrides.editing_threshold = Some(0.5),
        "editing_threshold cannot be used with the protocol llada",
    );
    check(
        Protocol::Editing,
        |overrides| overrides.steps = Some(8),
        "steps cannot be used with the protocol editing",
    );
    check(
        Protocol::BlockDiffusion,
        |overrides| overrides.process = Some(Process::Factor(1.0)),
        "factor cannot be used with the protocol block_diffusion",
    );
    check(
        REWRITING,
        |overrides| overrides.num_to_transfer = Some(1),
        "num_to_transfer cannot be used with the protocol rewriting",
    );
    check(
        Protocol::Dream,
        |overrides| overrides.block_length = Some(8),
        "block_length cannot be used with the protocol dream",
    );
    check(
        Protocol::VariableLength,
        |overrides| overrides.alg = Some(Alg::Entropy),
        "alg cannot be used with the protocol variable_length",
    );
    check(
        Protocol::Dream,
        |overrides| overrides.variable_length = Some(true),
        "variable_length cannot be used with the protocol dream",
    );
}

#[test]
fn memory_counts_whole_blocks_and_what_is_kept() {
    let memory = |protocol| {
        let policy = of(protocol);
        let request = policy
            .request(prompt(5), true, &Overrides::default())
            .unwrap();
        (request.length(), request.memory(&policy.info))
    };
    let (length, fill) = memory(Protocol::BlockDiffusion);
    assert_eq!(length, 2080);
    assert_eq!((fill.cache_bytes, fill.logits_bytes), (2080 * 9, 0));
    let (_, rewrite) = memory(REWRITING);
    // Logits of a block, twice, and what the block was in 1,000 steps.
    assert_eq!(rewrite.logits_bytes, 2 * 32 * 16 * 4);
    assert_eq!(rewrite.canvas_bytes, fill.canvas_bytes + 1000 * 32 * 4);
    assert_eq!(memory(Protocol::VariableLength).0, 5 + 2048);
}
