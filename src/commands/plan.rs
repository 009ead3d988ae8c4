//! `pontoon plan`: prints where AWS' replication groups are between plaintext and TLS, and follows a modification to its end.
//!
//! Requests to AWS, the judgement and its text are in `plan`.

use std::time::Duration;

/// Options of `pontoon plan`.
pub struct PlanOptions {
    /// The group. `None` plans for all groups that fail ElastiCache.5.
    pub group: Option<String>,
    /// AWS regions. If empty, the region comes from the environment or the profile.
    pub regions: Vec<String>,
    /// Follow a modification for this long.
    pub wait: Option<Duration>,
    /// Time between two requests to AWS.
    pub interval: Duration,
    /// Write JSON.
    pub json: bool,
}

/// Fails, because this build has no AWS crates.
#[cfg(not(feature = "iam"))]
pub fn run(_options: &PlanOptions) -> anyhow::Result<()> {
    anyhow::bail!(
        "this pontoon was built without the cargo feature \"iam\" and cannot ask AWS: build it with the default features"
    )
}

#[cfg(feature = "iam")]
pub use self::with_aws::run;

#[cfg(feature = "iam")]
mod with_aws {
    use anyhow::bail;
    use serde::Serialize;
    use tokio::time::{sleep, timeout};

    use super::{Duration, PlanOptions};
    use crate::commands::colour::Tint;
    use crate::commands::json::print_json;
    use crate::commands::wrap::wrapped;
    use crate::counted::counted;
    use crate::moment::Moment;
    use crate::plan::{Aws, GroupFacts, Modification, Plan, TransitEncryption, text};
    use crate::printable::printable;

    /// Number of consecutive answers that show that a change waits for the maintenance window. AWS accepts a change some moments before it
    /// begins to apply it, so one answer is not enough.
    const ANSWERS_OF_A_WAITING_CHANGE: u32 = 4;

    /// The whole output.
    #[derive(Serialize)]
    struct PlanReport {
        plans: Vec<Plan>,
        /// Groups that pass ElastiCache.5. Empty if `--group` names one.
        passing: Vec<PassingGroup>,
    }

    #[derive(Serialize)]
    struct PassingGroup {
        id: String,
        region: String,
        transit_encryption: TransitEncryption,
    }

    /// Asks AWS, and prints the plans. Fails if AWS does not answer, or if a followed modification did not end.
    pub fn run(options: &PlanOptions) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(report(options))
    }

    async fn report(options: &PlanOptions) -> anyhow::Result<()> {
        let regions: Vec<Option<&str>> = match &options.regions[..] {
            [] => vec![None],
            regions => regions.iter().map(|region| Some(region.as_str())).collect(),
        };
        let mut report = PlanReport { plans: Vec::new(), passing: Vec::new() };
        let mut asked = Vec::new();
        let mut ended = true;
        for region in regions {
            let mut aws = Aws::connect(region).await?;
            asked.push(printable(aws.region()).into_owned());
            if let (Some(group), Some(longest)) = (&options.group, options.wait) {
                ended = follow(&aws, group, longest, options).await?;
            }
            for group in aws.groups(options.group.as_deref()).await? {
                if options.group.is_some() || group.transit_encryption == TransitEncryption::Disabled {
                    report.plans.push(Plan::new(group));
                } else {
                    let GroupFacts { id, region, transit_encryption, .. } = group;
                    report.passing.push(PassingGroup { id, region, transit_encryption });
                }
            }
        }
        if options.json {
            print_json(&report);
        } else {
            print(&report, &asked);
        }
        if !ended {
            bail!(
                "the change has not begun: it waits for the maintenance window. The plan shows the command that starts it now"
            );
        }
        Ok(())
    }

    fn print(report: &PlanReport, asked: &[String]) {
        for (number, plan) in report.plans.iter().enumerate() {
            if number > 0 {
                say!("\n");
            }
            say!("{}", coloured(&wrapped(&text(plan))));
        }
        for PassingGroup { id, region, transit_encryption } in &report.passing {
            let still = if *transit_encryption == TransitEncryption::Preferred {
                ", which still accepts plaintext: pontoon plan --group shows the next step"
            } else {
                ""
            };
            say!("{}       {id} in {region}: {transit_encryption}{still}", Tint::Good.paint("passes"));
        }
        say!("\n{}", conclusion(report, asked));
    }

    /// Colours the first word of each line that needs attention.
    fn coloured(plan: &str) -> String {
        let line = |line: &str| {
            let marks = [("blocked ", Tint::Bad), ("note ", Tint::Doubtful)];
            let mark = marks.iter().find(|(word, _)| line.starts_with(word));
            mark.map_or_else(
                || line.to_owned(),
                |(word, tint)| format!("{}{}", tint.paint(word), &line[word.len()..]),
            )
        };
        plan.split('\n').map(line).collect::<Vec<_>>().join("\n")
    }

    /// `3 groups: 2 ready for the next step, 1 blocked; 2 groups pass ElastiCache.5`.
    fn conclusion(report: &PlanReport, asked: &[String]) -> String {
        let PlanReport { plans, passing } = report;
        let passing = match passing.len() {
            0 => String::new(),
            1 => "; 1 group passes ElastiCache.5".into(),
            count => format!("; {count} groups pass ElastiCache.5"),
        };
        if plans.is_empty() {
            return format!("no group in {} fails ElastiCache.5{passing}", asked.join(", "));
        }
        let states = ["ready for the next step", "changing", "blocked", "without a next step"];
        let state = |plan: &Plan| match (&plan.next, plan.is_changing(), plan.blockers.is_empty()) {
            (Some(_), ..) => 0,
            (None, true, _) => 1,
            (None, false, false) => 2,
            (None, false, true) => 3,
        };
        let count = |number| plans.iter().filter(|plan| state(plan) == number).count();
        let parts = states.iter().enumerate().map(|(number, what)| (count(number), what));
        let parts: Vec<String> =
            parts.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        format!("{}: {}{passing}", counted(plans.len(), "group"), parts.join(", "))
    }

    /// Waits until the group's modification has ended. Returns false if it waits for the maintenance window. Repeats a request that fails.
    async fn follow(
        aws: &Aws,
        group: &str,
        longest: Duration,
        options: &PlanOptions,
    ) -> anyhow::Result<bool> {
        let mut last = String::new();
        let mut tell = |words: String| {
            if !options.json && words != last {
                say!("{}  {words}", Moment::now());
                last = words;
            }
        };
        // If the first request fails, for example because the region is wrong, the command ends: repeating it for hours would not help.
        let (mut waiting, mut goal, mut answered) = (0, None, false);
        let ending = async {
            loop {
                match aws.status(group).await {
                    Ok(group) => {
                        answered = true;
                        let Plan { group, modification, .. } = Plan::new(group);
                        tell(progress(&group, modification));
                        goal = modification.and_then(|modification| modification.to).or(goal);
                        let waits = modification.is_some_and(|modification| !modification.running);
                        waiting = if waits { waiting + 1 } else { 0 };
                        match group.status.as_str() {
                            "available" if !waits => {
                                let reached = group.transit_encryption;
                                if let Some(goal) = goal.filter(|goal| *goal != reached) {
                                    bail!(
                                        "the change to \"{goal}\" has ended, but the group is \"{reached}\". The group's events say why \
                                         (aws elasticache describe-events)"
                                    );
                                }
                                return Ok(true);
                            }
                            "available" if waiting >= ANSWERS_OF_A_WAITING_CHANGE => return Ok(false),
                            "available" | "modifying" | "snapshotting" | "creating" => {}
                            status => {
                                bail!(
                                    "the group's status is \"{status}\", and no modification ends with that status. The group's events \
                                     say why (aws elasticache describe-events)"
                                )
                            }
                        }
                    }
                    Err(error) if answered && error.may_pass() => {
                        tell(format!("request failed, repeating it: {}", printable(&error.to_string())));
                    }
                    Err(error) => return Err(error.into()),
                }
                sleep(options.interval).await;
            }
        };
        match timeout(longest, ending).await {
            Ok(ended) => ended,
            Err(_) => bail!(
                "the change did not end within {}. AWS continues it: run the same command again, or use --wait=DUR to wait longer",
                humantime::format_duration(longest)
            ),
        }
    }

    fn progress(group: &GroupFacts, modification: Option<Modification>) -> String {
        let GroupFacts { id, status, transit_encryption, .. } = group;
        match modification {
            Some(Modification { to: Some(to), .. }) => {
                format!("{id}: {status}, transit encryption {transit_encryption}, changing to {to}")
            }
            _ => format!("{id}: {status}, transit encryption {transit_encryption}"),
        }
    }
}
