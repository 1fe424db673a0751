//! A replication slot that keeps the WAL of a base backup until the session that holds it ends.
//!
//! `pg_basebackup --wal-method=fetch` asks for the WAL last. Without a slot the server may have recycled it by
//! then, and hours of work would be lost.

use tokio_postgres::Client;

use crate::archive::layout::Attempt;

/// The slot of `attempt`. It has only letters, digits and underscores, and at most 63 of them.
pub fn name(attempt: &Attempt) -> String {
    format!("valv_{}", attempt.to_string().replace('-', "_"))
}

/// Makes the slot. It reserves WAL at once, and goes with the session.
pub async fn hold(client: &Client, attempt: &Attempt) -> Result<(), tokio_postgres::Error> {
    let make = "SELECT FROM pg_create_physical_replication_slot($1, true, true)";
    client.query_one(make, &[&name(attempt)]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_s_name_is_one_that_postgresql_takes() {
        let attempt = "0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a".parse().unwrap();

        let name = name(&attempt);

        assert!(name.len() <= 63);
        assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{name}");
    }
}
