//! The command line of the models.

use std::ffi::OsString;

use clap::Args;

pub(super) const MODELS_HELP: &str = "\
List the models that members offer, and the one address at which programs of this machine find all of them.

The address speaks OpenAI's interface, in JSON and in forms, as transcriptions and edits of pictures are sent. It sends each request to the member that will answer soonest, by load, round trip \
and whether the model is in memory, and to the next one if that does not answer. '<model>@<node>' as the model, or the \
header 'x-hive-node', names one member.

  LOAD   1.0 is as much as the server works on at once
  QUEUE  requests that wait there
  WARM   whether the model is in memory
  PRICE  of a million tokens, read / written, in the currency's smallest unit

With --json {\"endpoint\", \"models\": [{\"id\", \"node\", \"load\", \"rtt_ms\", \"loaded\", \"service\", \"health\", …}]}.";

pub(super) const CONNECT_HELP: &str = "\
Show what a program needs to use a model of the network, once it is known to be there.

  hivevpn connect openai://llama                       what to set
  eval \"$(hivevpn connect openai://llama --export)\"    set it in this shell
  hivevpn connect openai://llama@gpu --run -- python chat.py

The key is a placeholder: members know this node by its address. A server with keys of its own wants one of these.";

/// Arguments of `models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Only these, by id; '*' stands for any characters
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `connect`.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// openai:// and the model, with @ and a node if it has to be that one
    #[arg(value_name = "openai://MODEL[@NODE]", value_parser = parse_openai)]
    pub model: String,

    /// Print lines for a shell to evaluate
    #[arg(long, conflicts_with_all = ["run", "json"])]
    pub export: bool,

    /// Run the command behind `--` with it
    #[arg(long, conflicts_with = "json", requires = "line")]
    pub run: bool,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,

    /// The command to run, and its arguments
    #[arg(value_name = "COMMAND", last = true, requires = "run")]
    pub line: Vec<OsString>,
}

fn parse_openai(url: &str) -> Result<String, String> {
    match url.strip_prefix("openai://") {
        Some(model) if !model.is_empty() => Ok(model.to_owned()),
        Some(_) | None => Err("write openai:// and a model, such as openai://llama".to_owned()),
    }
}
