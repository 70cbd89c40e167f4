//! Why a request is not answered, in the shape that OpenAI's clients read.

use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
};

use crate::http::openai_error;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub status: StatusCode,
    /// For a person: what is wrong, where, and what to do.
    pub message: String,
    /// The part of the request that is wrong.
    pub param: Option<&'static str>,
    /// For a program.
    pub code: &'static str,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code,
        }
    }

    /// As [`new`](Self::new), about the request's model.
    pub fn of_model(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some("model"),
            ..Self::new(status, code, message)
        }
    }

    /// `{"error":{"message","type","param","code"}}`
    pub fn json(&self) -> String {
        let kind = match self.status.is_server_error() {
            true => "server_error",
            false => "invalid_request_error",
        };
        openai_error(&self.message, kind, self.param, Some(self.code)).to_string()
    }

    pub fn response(&self) -> Response<Bytes> {
        json_response(self.status, self.json())
    }
}

/// A response with such a body.
pub(super) fn json_response(status: StatusCode, json: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(json));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
