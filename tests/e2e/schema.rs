//! What the API server refuses at `kubectl apply`, with a sentence that says what to do.

use anyhow::{Result, ensure};
use harness::manifest::SMALLEST;
use harness::test::unique;
use harness::{refusal, run};

/// A flaw, the part of `spec` that has it, and what the refusal says.
const FLAWS: [(&str, &str, &str); 45] = [
    ("a field that nobody knows", "hots: ada.example", ".spec.hots: field not declared in schema"),
    (
        "a field that nobody knows, deep inside",
        "journal: {imagePullPolcy: Never}",
        ".spec.journal.imagePullPolcy: field not declared in schema",
    ),
    ("no host", "host: null", "spec.host"),
    ("a host without a domain", "host: ada", "spec.host"),
    ("a host with capitals", "host: Ada.example", "spec.host"),
    ("a host with a port", "host: 'ada.example:8443'", "spec.host"),
    ("a host with a scheme", "host: 'https://ada.example'", "spec.host"),
    (
        "an organisation number with a wrong check digit",
        "careProvider: {organisationNumber: 000000-0001}",
        "organisationNumber has a wrong check digit",
    ),
    (
        "an organisation number without its dash",
        "careProvider: {organisationNumber: '0000000000'}",
        "organisationNumber",
    ),
    (
        "gateway and ingress at once",
        "access: {gateway: {name: a, namespace: b}, ingress: {className: c}}",
        "name one of gateway, ingress and nodePort",
    ),
    (
        "requests of CPU above limits",
        "journal: {resources: {requests: {cpu: '2'}, limits: {cpu: 500m}}}",
        "requests.cpu is above limits.cpu",
    ),
    (
        "requests of memory above limits",
        "database: {resources: {requests: {memory: 2Gi}, limits: {memory: 512Mi}}}",
        "requests.memory is above limits.memory",
    ),
    ("a size of zero", "database: {size: '0'}", "spec.database.size"),
    ("a negative size", "database: {size: '-1'}", "spec.database.size"),
    ("a size in words", "database: {size: lots}", "spec.database.size"),
    ("no CPU at all", "journal: {resources: {limits: {cpu: '0'}}}", "spec.journal.resources.limits.cpu"),
    (
        "negative memory",
        "journal: {resources: {limits: {memory: '-1'}}}",
        "spec.journal.resources.limits.memory",
    ),
    (
        "memory in words",
        "journal: {resources: {limits: {memory: lots}}}",
        "spec.journal.resources.limits.memory",
    ),
    (
        "memory without a unit",
        "journal: {resources: {limits: {memory: '512'}}}",
        "spec.journal.resources.limits.memory",
    ),
    (
        "no size for the built-in database",
        "database: {size: null}",
        "database.size is required when provider is Builtin",
    ),
    (
        "an external server that is not described",
        "database: {provider: External, size: null}",
        "database.external and provider: External belong together",
    ),
    (
        "a parameter that would weaken the database",
        "database: {parameters: {fsync: 'off'}}",
        "a parameter is not among those that may be set",
    ),
    (
        "a parameter that ends its line",
        r#"database: {parameters: {work_mem: "4MB'\nfsync = 'off"}}"#,
        "spec.database.parameters.work_mem",
    ),
    ("a PostgreSQL that there is not", "database: {version: 16}", "spec.database.version"),
    ("no pods", "journal: {replicas: 0}", "spec.journal.replicas"),
    ("a port that only root may have", "journal: {port: 443}", "spec.journal.port"),
    ("root", "journal: {runAs: {user: 0}}", "spec.journal.runAs.user"),
    ("the proxy's own port", "journal: {tls: Proxy, port: 9443}", "it must differ from proxyPort"),
    (
        "files from two places",
        "journal: {files: [{mountPath: /a, secretName: b, configMapName: c}]}",
        "name either a Secret or a ConfigMap",
    ),
    (
        "an organisation number in the host",
        "host: ab-000000-0000.journal.test",
        "host holds no organisation number",
    ),
    (
        "an organisation number in the archive's name",
        "archiveID: ab0000000000",
        "archiveID holds no organisation number",
    ),
    (
        "a Secret without a name",
        "journal: {imagePullSecrets: [{name: ''}]}",
        "spec.journal.imagePullSecrets[0].name",
    ),
    (
        "a Secret whose name has a space",
        "journal: {imagePullSecrets: [{name: 'my registry'}]}",
        "spec.journal.imagePullSecrets[0].name",
    ),
    (
        "a certificate's Secret of no possible name",
        "certificates: {journalSecretRef: {name: a/b}}",
        "spec.certificates.journalSecretRef.name",
    ),
    (
        "a Gateway of no possible name",
        "access: {gateway: {name: 'the edge', namespace: edge}}",
        "spec.access.gateway.name",
    ),
    (
        "a database of PostgreSQL's own name",
        "database: {name: template1}",
        "database.name is one of PostgreSQL's own",
    ),
    (
        "a database that its own access file would misread",
        "database: {name: replication}",
        "database.name is one of",
    ),
    ("a volume that holds no database", "database: {size: 1Ki}", "database.size is too small for a database"),
    (
        "a volume that holds no attachment",
        "attachments: {size: 1Ki, mountPath: /var/lib/attachments}",
        "attachments.size is too small for a volume",
    ),
    (
        "attachments over Valv's own files",
        "attachments: {size: 1Gi, mountPath: /etc/valv/tls}",
        "attachments may not lie below /etc/valv",
    ),
    (
        "files over Valv's own",
        "journal: {files: [{mountPath: /etc/valv, secretName: mine}]}",
        "files may not lie below /etc/valv",
    ),
    (
        "backups that only one key opens",
        "backup: {recipients: {tenant: age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p}}",
        "spec.backup.recipients.escrow",
    ),
    ("backups that nobody opens", "backup: {policy: nightly}", "spec.backup.recipients"),
    (
        "two recipients of backups that are one key",
        "backup: {recipients: {tenant: age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p, \
         escrow: age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p}}",
        "the recipients are different keys",
    ),
    (
        "no CPU at all, with decimals",
        "journal: {resources: {limits: {cpu: '0.0'}}}",
        "spec.journal.resources.limits.cpu",
    ),
];

/// A flaw of a name, the name, and what the refusal says. `#` is four letters.
const NAMES: [(&str, &str, &str); 5] = [
    ("too long", "en-mycket-lang-vardgivares-namn-som-inte-gar-an-#", "at most 40 characters"),
    ("with a dot", "stads.kliniken-#", "a tenant's name is a label of RFC 1123"),
    ("with an organisation number", "ab-000000-0000-#", "a tenant's name holds no organisation number"),
    (
        "with an organisation number without its dash",
        "ab-0000000000-#",
        "a tenant's name holds no organisation number",
    ),
    ("with capitals", "Stadskliniken-#", "RFC 1123"),
];

/// What somebody changes, and what the refusal says.
const CHANGES: [(&str, &str, &str); 10] = [
    ("a smaller volume", "database: {size: 1Gi}", "database.size cannot shrink"),
    ("a smaller volume for attachments", "attachments: {size: 1Gi}", "attachments.size cannot shrink"),
    (
        "attachments for several nodes",
        "attachments: {accessMode: ReadWriteMany}",
        "attachments.accessMode is immutable",
    ),
    ("no attachments any more", "attachments: null", "their volume holds records"),
    ("another PostgreSQL", "database: {version: 18}", "spec.database.version"),
    ("another name of the database", "database: {name: records}", "database.name is immutable"),
    ("another storage class", "database: {storageClassName: fast}", "database.storageClassName is immutable"),
    ("another archive", "archiveID: another", "archiveID is immutable"),
    (
        "passwords of before",
        "database: {passwordRotation: {generation: 1}}",
        "passwordRotation.generation never goes back",
    ),
    (
        "an authority of before",
        "certificates: {rotation: {generation: 1}}",
        "certificates.rotation.generation never goes back",
    ),
];

#[test]
fn what_cannot_work_is_refused_when_it_is_applied() {
    run(async |test| {
        let mut wrong = vec![];
        for (flaw, spec, sentence) in FLAWS {
            let tenant = test.tenant("flawed")?.paused().with(spec)?;
            note(&mut wrong, flaw, sentence, tenant.apply().await);
        }

        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        test.measured(format_args!("{} flaws, each refused with its sentence", FLAWS.len()));
        Ok(())
    });
}

#[test]
fn a_name_that_would_break_something_is_refused() {
    run(async |test| {
        let mut wrong = vec![];
        for (flaw, name, sentence) in NAMES {
            let end = unique("");
            let tenant =
                test.tenant_named(&name.replace("-#", &end), SMALLEST)?.paused().with("host: a.example")?;
            note(&mut wrong, flaw, sentence, tenant.apply().await);
        }

        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        test.measured(format_args!("{} names, each refused with its sentence", NAMES.len()));
        Ok(())
    });
}

#[test]
fn what_may_not_change_is_refused_when_it_is_applied() {
    run(async |test| {
        let tenant = test.tenant("unchanging")?.paused().with(CHANGED_FROM)?;
        tenant.apply().await?;

        let mut wrong = vec![];
        for (what, spec, sentence) in CHANGES {
            note(&mut wrong, what, sentence, tenant.try_edit(spec).await);
        }

        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        test.measured(format_args!("{} changes, each refused with its sentence", CHANGES.len()));
        Ok(())
    });
}

/// What is changed in [`CHANGES`].
const CHANGED_FROM: &str = "
archiveID: NAME
attachments: {size: 2Gi, mountPath: /var/lib/journal}
certificates: {rotation: {generation: 2}}
database: {size: 2Gi, passwordRotation: {generation: 2}}
journal: {writableFolders: null}
";

/// Notes what was not refused, or not with its sentence.
fn note(wrong: &mut Vec<String>, flaw: &str, sentence: &str, answer: Result<()>) {
    match refusal(answer) {
        Ok(words) if words.contains(sentence) => {}
        Ok(words) => wrong.push(format!("{flaw}: refused without “{sentence}”: {words}")),
        Err(error) => wrong.push(format!("{flaw}: {error:#}")),
    }
}
