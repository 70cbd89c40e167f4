//! Finding the model in a body.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn found(body: &str) -> Result<String, u16> {
    found_in(body, true)
}

fn found_in(body: &str, is_whole: bool) -> Result<String, u16> {
    let found = Found::find(body.as_bytes(), None);
    let model = found.model(is_whole);
    model.map_or_else(|why| Err(why.status.as_u16()), |(model, _)| Ok(model))
}

fn question(body: &str) -> Question {
    let (model, place) = Found::find(body.as_bytes(), None).model(true).unwrap();
    Question {
        model,
        is_stream: false,
        place,
        is_json: true,
        kept: body.to_owned().into(),
        rest: None,
        is_spent: false,
        _room: None,
    }
}

#[test]
fn the_model_is_found_wherever_it_stands() {
    assert_eq!(found(r#"{"model":"llama"}"#), Ok("llama".into()));
    let nested =
        r#" {"messages":[{"model":"not this"}],"n":{"model":"nor this"}, "mo\u0064el" : "a\/b" }"#;
    assert_eq!(found(nested), Ok("a/b".into()));
    let twice = r#"{"model":"first","model":"last"}"#;
    assert_eq!(found(twice), Ok("last".into()), "as servers read it");
}

#[test]
fn what_has_no_model_is_refused() {
    for wrong in [
        "",
        "[]",
        "null",
        "{",
        r#"{"model":"x""#,
        r#"{"model":"x"} more"#,
        r#"{"model":3}"#,
        r#"{"prompt":"x"}"#,
        "\u{0}",
    ] {
        let refused = found(wrong);
        // Whatever stands behind the object is for the server to judge.
        let expected = if wrong.ends_with("more") {
            Ok("x".into())
        } else {
            Err(400)
        };
        assert_eq!(refused, expected, "{wrong}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(found(&format!(r#"{{"a":{deep}"#)), Err(400));
}

#[test]
fn of_a_body_that_was_not_read_whole_the_beginning_will_do() {
    let begun = r#"{"model":"llama","messages":["aaaaaaaa"#;
    assert_eq!(found_in(begun, false), Ok("llama".into()));
    assert_eq!(found_in(r#"{"messages":["aaaaaaaa"#, false), Err(413));
}

#[test]
fn only_true_asks_for_a_stream() {
    let is_stream = |body: &str| Found::find(body.as_bytes(), None).is_stream;
    assert!(is_stream(r#"{"stream": true ,"model":"x"}"#));
    assert!(!is_stream(r#"{"stream":false,"model":"x"}"#));
    assert!(!is_stream(r#"{"stream":"true","model":"x"}"#));
    assert!(!is_stream(r#"{"model":"x"}"#));
}

#[test]
fn a_model_is_replaced_and_nothing_else() {
    let mut question = question(r#"{"seed":1e400 , "model" : "lla\u006da@gpu","x":"é"}"#);
    assert_eq!(question.model, "llama@gpu");
    question.set_model("llama");
    assert_eq!(
        question.kept,
        r#"{"seed":1e400 , "model" : "llama","x":"é"}"#
    );
    question.set_model("a\"b");
    assert_eq!(
        question.kept,
        r#"{"seed":1e400 , "model" : "a\"b","x":"é"}"#
    );
}

fn form() -> Form {
    let mut headers = HeaderMap::new();
    let content = "multipart/form-data; boundary=XyZ".parse().unwrap();
    headers.insert(hyper::header::CONTENT_TYPE, content);
    Form::of(&headers).unwrap().unwrap()
}

const FILE: &str =
    "--XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\u{0}model\r\n";
const MODEL: &str = "--XyZ\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\near@gpu\r\n";

#[test]
fn the_model_of_a_form_is_replaced_and_nothing_else() {
    for (before, behind) in [(FILE, ""), ("", FILE)] {
        let body = format!("{before}{MODEL}{behind}--XyZ--\r\n");
        let (model, place) = Found::find(body.as_bytes(), Some(form()))
            .model(true)
            .unwrap();
        let mut question = Question {
            model,
            place,
            is_json: false,
            ..question(r#"{"model":""}"#)
        };
        question.kept = body.clone().into();
        assert_eq!(question.model, "ear@gpu");
        question.set_model("ear");
        assert_eq!(question.kept, body.replace("ear@gpu", "ear"));
    }
}

#[test]
fn a_form_without_a_model_or_an_end_is_refused() {
    let found = |body: &str, is_whole| {
        let found = Found::find(body.as_bytes(), Some(form()));
        found
            .model(is_whole)
            .map_err(|why| (why.status.as_u16(), why.code))
    };
    let end = "--XyZ--";
    assert_eq!(
        found(&format!("{FILE}{end}"), true).unwrap_err(),
        (400, "missing_model")
    );
    assert_eq!(
        found(&format!("{FILE}{MODEL}"), true).unwrap_err(),
        (400, "invalid_body")
    );
    assert_eq!(found(FILE, false).unwrap_err(), (413, "missing_model"));
    let begun = format!("{MODEL}{FILE}");
    assert_eq!(found(&begun, false).unwrap().0, "ear@gpu");
}

proptest! {
    #[test]
    fn any_object_with_a_model_is_understood(
        model in ".*",
        other in "[a-z]{1,8}",
        text in ".*",
        new in ".*",
        first: bool,
    ) {
        prop_assume!(other != "model" && other != "stream");
        let (model_field, other_field) = (
            format!("\"model\":{}", Value::from(model.clone())),
            format!("{}:{}", Value::from(other.clone()), json!({"model": text})),
        );
        let body = match first {
            true => format!("{{{model_field},{other_field}}}"),
            false => format!("{{{other_field},{model_field}}}"),
        };
        let mut question = question(&body);
        prop_assert_eq!(&question.model, &model);
        question.set_model(&new);
        let changed: Value = serde_json::from_slice(&question.kept).unwrap();
        prop_assert_eq!(changed, json!({"model": new, other: {"model": text}}));
    }

    #[test]
    fn no_body_is_misread(body: Vec<u8>) {
        let found = Found::find(&body, None);
        if let Some((_, place)) = found.model {
            prop_assert!(place.end <= body.len());
        }
    }
}
