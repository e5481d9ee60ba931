//! What a request is by default.

use llada_diffusion::PredictorInfo;
use llada_sample::{
    AnswerLength, CacheMode, Overrides, Policy, Process, RefreshPolicy, Request, SampleConfig, Task,
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
        cache: CacheMode::Activity,
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
