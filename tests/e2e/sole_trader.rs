//! A sole trader's organisation number is a personnummer: it stands in the spec, and nowhere else.

use anyhow::{Context, ensure};
use harness::run;
use valv_crds::condition::{ConditionType, Reason};

use crate::leaks::texts;

/// A test personnummer that Skatteverket publishes, as an organisation number.
const NUMBER: &str = "900101-9802";

#[test]
fn a_sole_traders_number_is_in_no_name_label_metric_log_or_event() {
    run(async |test| {
        let tenant = test.tenant("trader")?.with("suspended: true")?;
        let tenant = tenant.with(&format!("careProvider: {{organisationNumber: {NUMBER}}}"))?;
        tenant.apply().await?;
        tenant.says(ConditionType::Ready, "False", Reason::Suspended).await?;

        let mut object = tenant.object().await?;
        let asked = object["spec"]["careProvider"].take().to_string();
        let mut texts = texts(test, &tenant).await?;
        texts.retain(|(place, _)| place != "the tenant");
        texts.push(("the tenant, but for spec.careProvider".to_owned(), object.to_string()));
        for pod in test.operator().pods().await? {
            let name = pod["metadata"]["name"].as_str().context("every pod has a name")?;
            texts.push((format!("the metrics of {name}"), test.operator().page(name, "metrics").await?));
        }

        ensure!(asked.contains(NUMBER), "no positive control: the spec has no number: {asked}");
        let spellings = [NUMBER.to_owned(), NUMBER.replace('-', "")];
        for (place, text) in &texts {
            ensure!(!spellings.iter().any(|number| text.contains(number)), "it is in {place}");
        }
        test.measured(format_args!("looked for in {} texts", texts.len()));
        Ok(())
    });
}
