//! All in one program, so that a test that takes long has others beside it.

mod corpus;
mod crowds;
mod nat_table;
mod registry;
mod scenarios;
