//! Arguments of `audit`.

use clap::Args;

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// How many lines to show, the last ones
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    pub lines: usize,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}
