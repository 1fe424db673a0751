//! The policy's own questions: one query each, with one row of one boolean.
//!
//! Asked one after the other, each in a session of its own: one that goes wrong leaves nothing to the next. An error
//! is told by its kind, never in PostgreSQL's words, which may quote what is in a row.

use std::time::Duration;

use futures::{TryStreamExt, pin_mut};
use tokio::time::timeout;
use tokio_postgres::{Client, error::SqlState, types::Type};
use valv_crds::drill::DrillReason;

use crate::agent::drill_file::Question;

/// How much longer than PostgreSQL itself we wait.
const GRACE: Duration = Duration::from_secs(10);

/// Why a question is not answered with yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As one word.
    pub reason: DrillReason,
    /// As a sentence.
    pub message: String,
}

impl Refusal {
    fn no_boolean(message: &str) -> Self {
        Self { reason: DrillReason::SqlFalse, message: message.to_owned() }
    }

    fn failed(error: &tokio_postgres::Error) -> Self {
        Self { reason: DrillReason::SqlFailed, message: cause(error) }
    }
}

/// Asks `question` in the session `reader`.
pub async fn ask(reader: &mut Client, question: &Question) -> Result<(), Refusal> {
    let limit = Duration::from_secs(question.timeout_seconds.into());
    match timeout(limit + GRACE, answer(reader, question)).await {
        Ok(answered) => answered,
        Err(_) => {
            let message = format!("it took longer than {} s", question.timeout_seconds);
            Err(Refusal { reason: DrillReason::SqlFailed, message })
        }
    }
}

async fn answer(reader: &mut Client, question: &Question) -> Result<(), Refusal> {
    let failed = |error: tokio_postgres::Error| Refusal::failed(&error);
    let transaction = reader.build_transaction().read_only(true).start().await.map_err(failed)?;
    let limit = format!("SET LOCAL statement_timeout = '{}s'", question.timeout_seconds);
    transaction.batch_execute(&limit).await.map_err(failed)?;
    // Prepared: so it is one statement, and cannot end the transaction that it is in.
    let statement = transaction.prepare(&question.sql).await.map_err(failed)?;
    let [column] = statement.columns() else {
        return Err(Refusal::no_boolean("it is not a query with one column"));
    };
    if *column.type_() != Type::BOOL {
        return Err(Refusal::no_boolean("its answer is no boolean"));
    }
    let rows = transaction.query_raw(&statement, std::iter::empty::<&str>()).await.map_err(failed)?;
    pin_mut!(rows);
    let Some(row) = rows.try_next().await.map_err(failed)? else {
        return Err(Refusal::no_boolean("it has no answer"));
    };
    if rows.try_next().await.map_err(failed)?.is_some() {
        return Err(Refusal::no_boolean("it has more than one answer"));
    }
    match row.try_get::<_, Option<bool>>(0).map_err(failed)? {
        Some(true) => Ok(()),
        Some(false) => Err(Refusal::no_boolean("the answer is false")),
        None => Err(Refusal::no_boolean("the answer is null")),
    }
}

/// Why a query failed, without a word of what it found.
pub fn cause(error: &tokio_postgres::Error) -> String {
    let Some(code) = error.code() else { return "the connection was lost".to_owned() };
    let known = [
        (SqlState::QUERY_CANCELED, "it took too long"),
        (SqlState::READ_ONLY_SQL_TRANSACTION, "it writes, and may only read"),
        (SqlState::INSUFFICIENT_PRIVILEGE, "it asks for what the role that asks may not"),
        (SqlState::UNDEFINED_TABLE, "it names a table that is not there"),
        (SqlState::UNDEFINED_COLUMN, "it names a column that is not there"),
        (SqlState::UNDEFINED_FUNCTION, "it names a function that is not there"),
        (SqlState::SYNTAX_ERROR, "it cannot be parsed as one statement"),
    ];
    let words = known.iter().find(|(known, _)| known == code).map_or("it failed", |(_, words)| words);
    format!("{words} (SQLSTATE {})", code.code())
}
