//! Tests of the reading and writing of results.

use serde_json::{Value, json};

use super::{Origin, Outcome, csv, table};

fn estimate(ns: f64) -> Value {
    json!({
        "confidence_interval": { "lower_bound": ns - 10.0, "upper_bound": ns + 10.0 },
        "point_estimate": ns,
    })
}

fn parse(throughput: &Value, slope: &Value) -> Outcome {
    let benchmark = json!({ "full_id": "matmul/fwd/f32/64x64x64/cpu", "throughput": throughput });
    Outcome::parse(
        &benchmark,
        &json!({ "mean": estimate(4000.0), "slope": slope }),
    )
    .unwrap()
}

#[test]
fn the_slope_is_preferred_to_the_mean() {
    let bounds = |slope: &Value| {
        let outcome = parse(&Value::Null, slope);
        format!("{}..{}", outcome.ns_low, outcome.ns_high)
    };
    assert_eq!(bounds(&estimate(2000.0)), "1990..2010");
    assert_eq!(bounds(&Value::Null), "3990..4010");
}

#[test]
fn every_kind_of_throughput_is_read() {
    let check = |throughput: Value, flop, bytes| {
        let outcome = parse(&throughput, &Value::Null);
        assert_eq!((outcome.flop, outcome.bytes), (flop, bytes), "{throughput}");
    };
    check(Value::Null, None, None);
    check(json!({ "Elements": 524_288 }), Some(524_288), None);
    check(json!({ "Bytes": 49_152 }), None, Some(49_152));
    let both = json!({ "ElementsAndBytes": { "elements": 524_288, "bytes": 49_152 } });
    check(both, Some(524_288), Some(49_152));
}

#[test]
fn a_missing_estimate_is_an_error() {
    let error = Outcome::parse(&json!({ "full_id": "a" }), &json!({})).unwrap_err();
    assert_eq!(error.to_string(), "no estimate");
}

#[test]
fn the_table_shows_rates() {
    let mut outcomes = vec![parse(&json!({ "Elements": 524_288 }), &Value::Null)];
    let expected = "\
name                                 time      Gop/s       GB/s  % of limit
matmul/fwd/f32/64x64x64/cpu       4.00 us      131.1          -           -
";
    assert_eq!(table(&outcomes), expected);

    let limit = |name: &str, throughput| Outcome {
        name: name.to_owned(),
        ..parse(&throughput, &Value::Null)
    };
    outcomes.push(limit("limit/gemm/bf16/cpu", json!({ "Elements": 1 })));
    outcomes.push(limit(
        "limit/gemm/f32/cpu",
        json!({ "Elements": 1_048_576 }),
    ));
    outcomes.push(limit("limit/read/cpu", json!({ "Bytes": 80_000 })));
    outcomes.push(limit(
        "add/fwd/f32/tiny/cpu",
        json!({ "ElementsAndBytes": { "elements": 10, "bytes": 20_000 } }),
    ));
    let expected = "\
name                                 time      Gop/s       GB/s  % of limit
matmul/fwd/f32/64x64x64/cpu       4.00 us      131.1          -        50.0
limit/gemm/bf16/cpu               4.00 us        0.0          -       100.0
limit/gemm/f32/cpu                4.00 us      262.1          -       100.0
limit/read/cpu                    4.00 us          -       20.0       100.0
add/fwd/f32/tiny/cpu              4.00 us        0.0        5.0        25.0
";
    assert_eq!(table(&outcomes), expected);
}

#[test]
fn every_row_of_the_csv_has_its_origin() {
    let origin = Origin {
        date: "2026-01-02".to_owned(),
        commit: "abc1234".to_owned(),
        cpu: "Some \"fast\" CPU, 2 threads".to_owned(),
    };
    let outcomes = [parse(&json!({ "Bytes": 8000 }), &Value::Null)];
    let expected = "\
date,commit,cpu,name,ns,ns_low,ns_high,flop,bytes,gops,gigabytes_per_second,share_of_limit
2026-01-02,abc1234,\"Some \"\"fast\"\" CPU, 2 threads\",matmul/fwd/f32/64x64x64/cpu,\
4000.0,3990.0,4010.0,,8000,,2.000,
";
    assert_eq!(csv(&origin, &outcomes), expected);
}
