//! The readers, byte by byte and against a parser that sees all at once.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn headers(kind: &str, encoding: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
    }
    headers
}

fn read(mut scan: Scan, pieces: &[&[u8]]) -> Found {
    pieces.iter().for_each(|piece| scan.read(piece));
    scan.finish()
}

fn json_of(text: &str) -> Found {
    read(Scan::Json(Json::default()), &[text.as_bytes()])
}

fn sse_of(text: &str) -> Found {
    read(Scan::Sse(Sse::default()), &[text.as_bytes()])
}

#[test]
fn only_what_can_be_read_is_read() {
    assert!(matches!(
        Scan::of(&headers("Application/JSON; charset=utf-8", None)),
        Some(Scan::Json(_))
    ));
    assert!(matches!(
        Scan::of(&headers("text/event-stream", Some("identity"))),
        Some(Scan::Sse(_))
    ));
    assert_eq!(Scan::of(&headers("application/json", Some("gzip"))), None);
    assert_eq!(Scan::of(&headers("image/png", None)), None);
    assert_eq!(Scan::of(&HeaderMap::new()), None);
}

#[test]
fn usage_counts_where_it_belongs_and_nowhere_else() {
    let found = json_of(
        "{\"usage\" : { \"prompt_tokens\":3 , \"completion_tokens\": 4\n}, \"model\":\"a\\/b\"}",
    );
    assert_eq!(found.prompt_tokens, Some(3));
    assert_eq!(found.completion_tokens, Some(4));
    assert_eq!(found.model.as_deref(), Some("a/b"));
    let nested = json_of("{\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}}");
    assert_eq!(
        (nested.prompt_tokens, nested.completion_tokens),
        (Some(5), Some(6))
    );
    for elsewhere in [
        "{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":3}\"}",
        "{\"choices\":[{\"usage\":{\"prompt_tokens\":3}}]}",
        "{\"usage\":[{\"prompt_tokens\":3}]}",
        "{\"usage\":{\"details\":{\"prompt_tokens\":3}}}",
        "{\"usage\":null,\"prompt_tokens\":3}",
        "{\"usage\":{\"prompt_tokens\":-3,\"completion_tokens\":\"4\"}}",
        "[{\"usage\":{\"prompt_tokens\":3}}]",
        "{\"choices\":[{\"model\":\"a\"}],\"model\":\"\",\"model\":7}",
    ] {
        assert_eq!(json_of(elsewhere), Found::default(), "{elsewhere}");
    }
}

#[test]
fn numbers_beyond_reason_and_names_beyond_bounds_stay_outside() {
    let found = json_of("{\"usage\":{\"prompt_tokens\":18446744073709551615}}");
    assert_eq!(found.prompt_tokens, Some(100_000_000));
    let long = format!("{{\"model\":\"{}\"}}", "a".repeat(300));
    assert_eq!(json_of(&long).model, None);
    assert_eq!(json_of("{\"model\":\"a\\u001b[31mb\"}").model, None);
    assert_eq!(json_of("{\"model\":\"\u{202e}b\"}").model, None);
}

#[test]
fn depth_costs_nothing() {
    let deep = "[".repeat(1_000_000) + "1" + &"]".repeat(1_000_000);
    let found = json_of(&format!(
        "{{\"a\":{deep},\"usage\":{{\"prompt_tokens\":3}}}}"
    ));
    assert_eq!(found.prompt_tokens, Some(3));
}

#[test]
fn events_end_lines_as_they_like() {
    for end in ["\n", "\r\n", "\r"] {
        let text = [
            ": a comment",
            "event: message",
            "data: {\"choices\":[{\"text\":\"a\"}],",
            "data: \"usage\":{\"completion_tokens\":1}}",
            "",
            "data:{\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"{\"}}]}}]}",
            "",
            "datum: {\"choices\":[{\"text\":\"a\"}]}",
            "",
            "data: [DONE]",
            "",
            "data: {\"usage\":{\"completion_tokens\":9}}",
        ]
        .join(end);
        let found = sse_of(&text);
        assert_eq!(
            (found.pieces, found.completion_tokens),
            (2, Some(9)),
            "{end:?}"
        );
    }
}

#[test]
fn a_broken_event_spoils_only_itself() {
    let found = sse_of("data: {\"a\": \"unended\n\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\n");
    assert_eq!(found.pieces, 1);
}

/// Values that may look like what is sought, anywhere.
fn value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("usage".to_owned()),
        Just("model".to_owned()),
        Just("prompt_tokens".to_owned()),
        Just("completion_tokens".to_owned()),
        Just("response".to_owned()),
        Just("content".to_owned()),
        "[a-z\"\\\\{}:,\\[\\] äß\u{1f41d}]{0,8}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..1000_u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(word.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What is to be found in a value, by looking at all of it.
fn expected(value: &Value) -> Found {
    let mut found = Found::default();
    let Some(object) = value.as_object() else {
        return found;
    };
    found.model = object
        .get("model")
        .and_then(Value::as_str)
        .and_then(model_id);
    let mut take = |usage: &Value| {
        let Some(usage) = usage.as_object() else {
            return;
        };
        let number = |name: &str| usage.get(name).and_then(Value::as_u64);
        found.prompt_tokens = number("prompt_tokens").or(found.prompt_tokens);
        found.completion_tokens = number("completion_tokens").or(found.completion_tokens);
    };
    // In the order in which they stand.
    for (key, value) in object {
        match key.as_str() {
            "usage" => take(value),
            "response" => take(&value["usage"]),
            _ => {}
        }
    }
    found
}

/// The same bytes in pieces of these lengths, over and over.
fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, left) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = left;
    }
    pieces
}

proptest! {
    #[test]
    fn json_is_read_as_a_parser_reads_it_in_whatever_pieces(
        value in value(), pretty in any::<bool>(), lengths in prop::collection::vec(1..20_usize, 1..10)
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let found = read(Scan::Json(Json::default()), &cut(text.as_bytes(), &lengths));
        prop_assert_eq!(found, expected(&value), "{}", text);
    }

    #[test]
    fn a_stream_is_counted_the_same_in_whatever_pieces(
        contents in prop::collection::vec(prop::option::of("[a-z\"\\\\\n ä]{0,5}"), 0..20),
        tokens in prop::option::of((0..1000_u64, 0..1000_u64)),
        return_too in any::<bool>(),
        lengths in prop::collection::vec(1..40_usize, 1..10),
    ) {
        let end = if return_too { "\r\n" } else { "\n" };
        let mut text = String::new();
        for content in &contents {
            let event = json!({"model": "m", "choices": [{"index": 0, "delta": {"content": content}}]});
            text += &format!("data: {event}{end}{end}");
        }
        if let Some((prompt, completion)) = tokens {
            let event = json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}});
            text += &format!("data: {event}{end}{end}");
        }
        text += &format!("data: [DONE]{end}{end}");
        let found = read(Scan::Sse(Sse::default()), &cut(text.as_bytes(), &lengths));
        let pieces = contents.iter().flatten().filter(|content| !content.is_empty()).count() as u64;
        prop_assert_eq!(found.pieces, pieces);
        prop_assert_eq!(found.prompt_tokens, tokens.map(|(prompt, _)| prompt));
        prop_assert_eq!(found.completion_tokens, tokens.map(|(_, completion)| completion));
    }

    #[test]
    fn any_bytes_are_survived_and_read_the_same_in_pieces(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\\r\ndata: usage0"[..])], 0..300),
        lengths in prop::collection::vec(1..20_usize, 1..10),
    ) {
        for scan in [Scan::Json(Json::default()), Scan::Sse(Sse::default())] {
            let whole = read(scan.clone(), &[&bytes]);
            prop_assert_eq!(read(scan, &cut(&bytes, &lengths)), whole);
        }
    }
}
