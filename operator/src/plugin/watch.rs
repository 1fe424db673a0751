//! Watches one object until it has ended: a bar on a terminal, plain lines elsewhere.

use std::fmt::Debug;

use jiff::Timestamp;
use kube::{Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::{Api, Error, Screen, Surroundings, Verdict};

/// So many looks in a row may fail: the API server of a cluster that is being upgraded is away for a while.
const FAILURES: u32 = 30;

/// Letters of a bar.
const BAR: usize = 24;

/// How far something is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// What it does.
    pub stage: String,
    /// How far it is.
    pub percent: Option<i32>,
    /// More: bytes, rate, how long yet.
    pub detail: String,
}

/// How something that is watched stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is under way.
    Under(Step),
    /// It has ended.
    Over {
        /// How.
        verdict: Verdict,
        /// What is told of it.
        told: String,
    },
}

impl Step {
    /// On a terminal.
    fn bar(&self) -> String {
        let Some(percent) = self.percent else { return format!("{}  {}", self.stage, self.detail) };
        let percent = percent.clamp(0, 100);
        let full = usize::try_from(percent).unwrap_or_default() * BAR / 100;
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR - full));
        format!("{}  [{bar}] {percent:>3} %  {}", self.stage, self.detail)
    }

    /// In a file.
    fn line(&self) -> String {
        match self.percent {
            Some(percent) => format!("{}  {percent} %  {}", self.stage, self.detail),
            None => format!("{}  {}", self.stage, self.detail),
        }
    }

    /// What must differ for another line in a file: a stage, or a tenth of the whole.
    fn coarse(&self) -> (String, Option<i32>) {
        (self.stage.clone(), self.percent.map(|percent| percent / 10))
    }
}

/// Watches the `K` called `name` of `tenant` until `stand` says that it is over.
///
/// # Errors
/// If it vanished, or the API server did not answer for some time. What is watched goes on then.
pub async fn watch<K>(
    api: &Api,
    tenant: &str,
    name: &str,
    stand: impl Fn(&K, Timestamp) -> Standing,
    surroundings: &mut Surroundings<'_>,
) -> Result<Verdict, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let mut failures = 0;
    let mut printed = None;
    loop {
        let found = match api.find::<K>(tenant, name).await {
            Ok(found) => {
                failures = 0;
                found
            }
            Err(error) if error.is_passing() && failures < FAILURES => {
                failures += 1;
                sleep(surroundings.look_every).await;
                continue;
            }
            Err(error) => {
                clear(surroundings)?;
                return Err(error);
            }
        };
        let Some(object) = found else {
            clear(surroundings)?;
            let what = format!("{} {name} of {tenant} any more", K::kind(&()));
            let next = format!(
                "somebody deleted it; `kubectl get {} -n {}` lists what there is",
                K::plural(&()),
                super::api::namespace(tenant)
            );
            return Err(Error::NotThere { what, next });
        };
        match stand(&object, (surroundings.now)()) {
            Standing::Over { verdict, told } => {
                clear(surroundings)?;
                surroundings.say(&told)?;
                return Ok(verdict);
            }
            Standing::Under(step) => match surroundings.screen {
                Screen::Terminal => {
                    clear(surroundings)?;
                    write!(surroundings.out, "{}", step.bar())
                        .and_then(|()| surroundings.out.flush())
                        .map_err(Error::Print)?;
                }
                Screen::Lines => {
                    let coarse = step.coarse();
                    if printed.as_ref() != Some(&coarse) {
                        surroundings.say(&step.line())?;
                        printed = Some(coarse);
                    }
                }
            },
        }
        sleep(surroundings.look_every).await;
    }
}

/// Takes the bar away.
fn clear(surroundings: &mut Surroundings<'_>) -> Result<(), Error> {
    match surroundings.screen {
        // Back to the first column, and everything after it away (ECMA-48, EL).
        Screen::Terminal => write!(surroundings.out, "\r\x1b[2K").map_err(Error::Print),
        Screen::Lines => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(percent: Option<i32>) -> Step {
        Step { stage: "Database".to_owned(), percent, detail: "3m left".to_owned() }
    }

    #[test]
    fn a_bar_is_as_long_at_every_percentage() {
        let length = |percent| step(Some(percent)).bar().chars().count();

        assert!([0, 1, 50, 99, 100, 101, -1].into_iter().all(|percent| length(percent) == length(0)));
        assert_eq!(step(Some(50)).bar(), "Database  [############------------]  50 %  3m left");
        assert_eq!(step(None).bar(), "Database  3m left");
    }

    #[test]
    fn a_file_gets_another_line_for_another_stage_or_another_tenth() {
        assert_eq!(step(Some(41)).coarse(), step(Some(49)).coarse());
        assert_ne!(step(Some(49)).coarse(), step(Some(50)).coarse());
    }
}
