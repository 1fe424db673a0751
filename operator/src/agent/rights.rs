//! The SQL that gives each role what it may do, and no more.
//!
//! Pure: a roles file in, SQL out. Every statement says all of its subject, so that running it twice is
//! running it once, and what somebody changed by hand is changed back.
//!
//! | role                  | may                                                                    |
//! |-----------------------|------------------------------------------------------------------------|
//! | `journal_owner`       | everything in the journal's database, whose owner it is                 |
//! | `journal_app`         | group of the next two: rows only, or as the owner ([`ApplicationGrant`]) |
//! | `journal_app_a`, `_b` | what `journal_app` may                                                  |
//! | `journal_replication` | replicate; in the journal's database, write the sentinel and nothing else |
//! | `journal_check`       | read everything in the journal's database, whatever its row policies hide |
//! | `valv_roles`          | set logins and passwords of the others; hold none of their rights       |

use std::collections::BTreeSet;

use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::{
    backup::sentinel,
    roles::{ApplicationGrant, Role, Roles},
};

/// The group that holds the journal's rights. Nobody logs in as it.
pub const APPLICATION_GROUP: &str = "journal_app";

/// The statements that make the roles that are not among `existing`, without any right.
pub fn create_roles(existing: &BTreeSet<String>) -> String {
    Role::ALL
        .map(Role::name)
        .iter()
        .chain([&APPLICATION_GROUP])
        .filter(|name| !existing.contains(**name))
        .map(|name| format!("CREATE ROLE {} NOLOGIN;\n", escape_identifier(name)))
        .collect()
}

/// The statement that makes the journal's database. It cannot be part of a transaction.
///
/// From `template0`: nothing that was ever done to `template1` comes with it.
pub fn create_database(roles: &Roles) -> String {
    format!("CREATE DATABASE {} OWNER journal_owner TEMPLATE template0 ENCODING 'UTF8'", database(roles))
}

/// The statements about roles, for a superuser in any database: attributes, logins, memberships.
///
/// The log settings of `valv_roles` keep the verifiers that it sends out of the server's log; only a
/// superuser could change them. Its `ADMIN` without `INHERIT` and `SET` is what PostgreSQL 16 and later ask of
/// a `CREATEROLE` role before it may change another's password.
/// Source: <https://www.postgresql.org/docs/17/role-attributes.html>, "role creation".
pub fn roles_sql(roles: &Roles) -> String {
    let mut sql = String::from("ALTER ROLE postgres PASSWORD NULL;\n");
    for role in Role::ALL {
        let attributes = match role {
            Role::JournalReplication => "NOCREATEROLE REPLICATION",
            Role::ValvRoles => "CREATEROLE NOREPLICATION",
            // It counts rows: a policy of the journal's must not hide any from it.
            Role::JournalCheck => "NOCREATEROLE NOREPLICATION BYPASSRLS",
            Role::JournalOwner | Role::JournalAppA | Role::JournalAppB => "NOCREATEROLE NOREPLICATION",
        };
        let hidden = if role == Role::JournalCheck { "" } else { " NOBYPASSRLS" };
        sql += &format!(
            "ALTER ROLE {role} NOSUPERUSER NOCREATEDB{hidden} INHERIT {attributes} {};\n",
            login(roles, role),
        );
    }
    sql += &format!(
        "ALTER ROLE {APPLICATION_GROUP} NOSUPERUSER NOCREATEDB NOBYPASSRLS INHERIT NOCREATEROLE NOREPLICATION \
         NOLOGIN PASSWORD NULL;\n"
    );

    sql += match roles.application_grant {
        ApplicationGrant::DataOnly => {
            "REVOKE journal_owner FROM journal_app;\n\
             ALTER ROLE journal_app_a RESET role;\n\
             ALTER ROLE journal_app_b RESET role;\n"
        }
        ApplicationGrant::Owner => {
            "GRANT journal_owner TO journal_app WITH ADMIN FALSE, INHERIT TRUE, SET TRUE;\n\
             ALTER ROLE journal_app_a SET role = journal_owner;\n\
             ALTER ROLE journal_app_b SET role = journal_owner;\n"
        }
    };
    sql += "GRANT journal_app TO journal_app_a, journal_app_b WITH ADMIN FALSE, INHERIT TRUE, SET TRUE;\n\
            GRANT pg_read_all_data TO journal_check WITH ADMIN FALSE, INHERIT TRUE, SET FALSE;\n\
            ALTER ROLE journal_check RESET ALL;\n\
            ALTER ROLE journal_check SET default_transaction_read_only = on;\n\
            ALTER ROLE journal_check SET search_path = pg_catalog, public, pg_temp;\n\
            GRANT journal_owner, journal_app_a, journal_app_b, journal_replication, journal_check TO valv_roles \
            WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;\n\
            ALTER ROLE valv_roles RESET ALL;\n\
            ALTER ROLE valv_roles SET search_path = pg_catalog, pg_temp;\n\
            ALTER ROLE valv_roles SET log_statement = 'none';\n\
            ALTER ROLE valv_roles SET log_min_error_statement = 'panic';\n\
            ALTER ROLE valv_roles SET log_min_duration_statement = -1;\n\
            ALTER ROLE valv_roles SET log_min_duration_sample = -1;\n\
            ALTER ROLE valv_roles SET log_transaction_sample_rate = 0;\n";
    sql
}

/// The statements about what lies in the journal's database, for a superuser in that database.
///
/// Temporary tables are data: the journal may make them. Checks may not.
pub fn grants_sql(roles: &Roles) -> String {
    let database = database(roles);
    format!(
        "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;\n\
         ALTER DATABASE {database} OWNER TO journal_owner;\n\
         REVOKE ALL ON DATABASE {database} FROM PUBLIC;\n\
         GRANT CONNECT, TEMPORARY ON DATABASE {database} TO journal_app;\n\
         GRANT CONNECT ON DATABASE {database} TO journal_check, journal_replication, valv_roles;\n\
         ALTER SCHEMA public OWNER TO journal_owner;\n\
         REVOKE CREATE ON SCHEMA public FROM PUBLIC;\n\
         GRANT USAGE ON SCHEMA public TO journal_app;\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO journal_app;\n\
         GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO journal_app;\n\
         GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO journal_app;\n\
         ALTER DEFAULT PRIVILEGES FOR ROLE journal_owner IN SCHEMA public \
         GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO journal_app;\n\
         ALTER DEFAULT PRIVILEGES FOR ROLE journal_owner IN SCHEMA public \
         GRANT USAGE, SELECT ON SEQUENCES TO journal_app;\n\
         ALTER DEFAULT PRIVILEGES FOR ROLE journal_owner IN SCHEMA public \
         GRANT EXECUTE ON ROUTINES TO journal_app;\n\
         {sentinel}",
        sentinel = sentinel::table_sql(Role::JournalReplication.name()),
    )
}

/// The statements that set logins and passwords, for `valv_roles` itself.
///
/// All of them, since it may not see which differ. Its own password is the last, and only its password: a
/// role may change that of itself, and nothing else.
pub fn logins_sql(roles: &Roles) -> String {
    Role::ALL
        .into_iter()
        .map(|role| match (role, roles.roles.get(&role)) {
            (Role::ValvRoles, Some(Some(verifier))) => {
                format!("ALTER ROLE {role} PASSWORD {};\n", escape_literal(verifier.expose()))
            }
            (Role::ValvRoles, Some(None) | None) => String::new(),
            _ => format!("ALTER ROLE {role} {};\n", login(roles, role)),
        })
        .collect()
}

/// Whether `role` may log in, and how.
fn login(roles: &Roles, role: Role) -> String {
    match roles.roles.get(&role) {
        Some(Some(verifier)) => format!("LOGIN PASSWORD {}", escape_literal(verifier.expose())),
        Some(None) | None => "NOLOGIN PASSWORD NULL".to_owned(),
    }
}

fn database(roles: &Roles) -> String {
    escape_identifier(roles.database.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use secrecy::SecretString;

    use super::*;
    use crate::agent::scram::verifier;

    fn roles(application_grant: ApplicationGrant) -> Roles {
        Roles {
            database: "jour\"nal".parse().unwrap(),
            application_grant,
            roles: BTreeMap::from([
                (Role::JournalOwner, Some(verifier(&SecretString::from("pencil")))),
                (Role::JournalAppA, None),
                (Role::ValvRoles, Some(verifier(&SecretString::from("roles")))),
            ]),
        }
    }

    #[test]
    fn only_missing_roles_are_made() {
        let existing = BTreeSet::from([
            "journal_owner".to_owned(),
            "journal_app".to_owned(),
            "journal_app_a".to_owned(),
            "journal_app_b".to_owned(),
            "journal_check".to_owned(),
        ]);

        assert_eq!(
            create_roles(&existing),
            "CREATE ROLE \"journal_replication\" NOLOGIN;\nCREATE ROLE \"valv_roles\" NOLOGIN;\n",
        );
    }

    #[test]
    fn a_role_without_a_verifier_cannot_log_in() {
        let sql = logins_sql(&roles(ApplicationGrant::DataOnly));

        assert!(sql.contains("ALTER ROLE journal_app_a NOLOGIN PASSWORD NULL;"));
        assert!(sql.contains("ALTER ROLE journal_check NOLOGIN PASSWORD NULL;"));
        assert!(sql.contains("ALTER ROLE journal_owner LOGIN PASSWORD 'SCRAM-SHA-256$4096:"));
    }

    #[test]
    fn the_role_that_sets_the_others_sets_itself_last_and_never_locks_itself_out() {
        let sql = logins_sql(&roles(ApplicationGrant::DataOnly));

        assert!(sql.lines().last().unwrap().starts_with("ALTER ROLE valv_roles PASSWORD 'SCRAM-SHA-256$"));
        assert!(!sql.contains("valv_roles LOGIN") && !sql.contains("valv_roles NOLOGIN"));
    }

    #[test]
    fn the_database_is_quoted() {
        assert!(
            create_database(&roles(ApplicationGrant::Owner))
                .contains("CREATE DATABASE \"jour\"\"nal\" OWNER")
        );
    }

    #[test]
    fn the_journal_is_the_owner_only_where_the_grant_says_so() {
        let data_only = roles_sql(&roles(ApplicationGrant::DataOnly));
        let owner = roles_sql(&roles(ApplicationGrant::Owner));

        assert!(data_only.contains("REVOKE journal_owner FROM journal_app;"));
        assert!(!data_only.contains("SET role = journal_owner"));
        assert!(owner.contains("GRANT journal_owner TO journal_app"));
    }
}
