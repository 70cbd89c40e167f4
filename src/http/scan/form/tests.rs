//! Finding the model in a form.

use hyper::header::CONTENT_TYPE;
use proptest::prelude::*;

use super::*;

fn form_of(content: &str) -> Option<Result<Form, NoBoundary>> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, content.parse().unwrap());
    Form::of(&headers)
}

fn form() -> Form {
    form_of("multipart/form-data; boundary=XyZ")
        .unwrap()
        .unwrap()
}

fn part(head: &str, content: &str) -> String {
    format!("--XyZ\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
}

/// The model of a form, which has to stand where the form says.
fn model(body: &[u8]) -> Option<String> {
    let mut whole = form();
    whole.read(body);
    let mut pieces = form();
    body.iter().for_each(|byte| pieces.read(&[*byte]));
    assert_eq!(whole, pieces, "however it comes");
    let (model, place) = whole.model?;
    assert_eq!(&body[place], model.as_bytes());
    Some(model)
}

const FILE: &str = "name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav";

#[test]
fn the_model_is_found_before_and_behind_the_file() {
    let file = part(FILE, "\r\n--Xy\r\n\r--XyZ\0name=\"model\"\r\n\r\n\r\n--");
    let ear = part("name=\"model\"", "ear");
    for body in [
        format!("{ear}{file}--XyZ--\r\n"),
        format!("{file}{ear}--XyZ--"),
        format!("preamble\r\n{file}{ear}--XyZ--\r\nepilogue"),
        format!("{file}{}--XyZ--", part("Name=model", "ear")),
        format!("{}{ear}--XyZ--", part("name=\"model\"", "not the last")),
    ] {
        assert_eq!(model(body.as_bytes()).as_deref(), Some("ear"), "{body}");
        let mut form = form();
        form.read(body.as_bytes());
        assert!(form.is_whole() && !form.is_stream);
    }
}

#[test]
fn what_is_no_model_is_not_taken_for_one() {
    for body in [
        String::new(),
        "--XyZ--".to_owned(),
        part(FILE, "ear"),
        part("name=\"file\"; filename=\"x; name=\\\"model\\\"\"", "ear") + "--XyZ--",
        part("name=\"models\"", "ear") + "--XyZ--",
        // It has no end.
        part("name=\"model\"", "ear"),
        part("name=\"model\"", &"e".repeat(5000)) + "--XyZ--",
        "--XyZ--\r\n".to_owned() + &part("name=\"model\"", "ear") + "--XyZ--",
        "--XyZmore\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\near\r\n--XyZ--"
            .to_owned(),
    ] {
        assert_eq!(model(body.as_bytes()), None, "{body}");
    }
    assert_eq!(model(part("name=\"model\"", "").as_bytes()), None);
    let empty = part("name=\"model\"", "") + "--XyZ--";
    assert_eq!(model(empty.as_bytes()).as_deref(), Some(""));
}

#[test]
fn only_true_asks_for_a_stream() {
    for (value, is_stream) in [
        ("true", true),
        ("True", true),
        ("false", false),
        ("1", false),
    ] {
        let mut form = form();
        form.read((part("name=\"stream\"", value) + "--XyZ--").as_bytes());
        assert_eq!(form.is_stream, is_stream, "{value}");
    }
}

#[test]
fn a_form_says_what_separates_its_parts() {
    let is_form = |content| form_of(content).map(|form| form.is_ok());
    assert_eq!(is_form("application/json"), None);
    for good in [
        "multipart/form-data; boundary=x",
        "Multipart/Form-Data;charset=utf-8 ; Boundary = \"a b\"",
    ] {
        assert_eq!(is_form(good), Some(true), "{good}");
    }
    let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    for bad in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"x",
        &long,
    ] {
        assert_eq!(is_form(bad), Some(false), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_form_with_a_model_is_understood(
        name in "[ -~é]{0,100}",
        file: Vec<u8>,
        is_first: bool,
    ) {
        let mut file = [part(FILE, "").trim_ascii_end().as_bytes(), b"\r\n\r\n", &file, b"\r\n"].concat();
        let mut named = part("name=\"model\"", &name).into_bytes();
        let body = match is_first {
            true => { named.append(&mut file); named }
            false => { file.append(&mut named); file }
        };
        prop_assert_eq!(model(&[&body[..], b"--XyZ--"].concat()), Some(name));
    }

    #[test]
    fn no_bytes_are_misread(bytes in proptest::collection::vec(
        prop_oneof![
            Just(b"\r\n".to_vec()), Just(b"--XyZ".to_vec()), Just(b"--".to_vec()),
            Just(b"Content-Disposition: form-data; name=\"model\"".to_vec()), any::<Vec<u8>>(),
        ], 0..20)) {
        // It looks whether the model stands where the form says.
        let _ = model(&bytes.concat());
    }
}
