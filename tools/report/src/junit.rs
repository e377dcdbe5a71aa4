// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results as JUnit XML, for what shows test results.
//!
//! A case that is as expected passes, and one that is not fails. One without an expectation passes
//! if it has a result that is no fault of Firebreak's. One without a result is an *error*, not
//! skipped: a viewer that only looks for failures must not show it as good. A case of the plan that
//! did not run is not there by name; the suite says how many there are.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{Case, Class, Results, order, summary};

/// Returns results as JUnit XML.
///
/// What XML cannot hold (control characters of a console, say) is left out.
///
/// # Errors
///
/// Fails as the writer of XML does.
pub fn junit(results: &Results) -> Result<String, quick_junit::SerializeError> {
    let run = &results.run;
    let mut suite = TestSuite::new(run.plan.as_str());
    let facts = [
        ("plan_sha256", run.plan_sha256.clone()),
        ("firebreak", run.firebreak.clone()),
        ("commit", run.commit.clone().unwrap_or_default()),
        ("qemu", run.qemu.clone()),
        ("cpu", run.cpu.clone()),
        ("seed", run.seed.to_string()),
        ("started", run.started.clone()),
        ("command", run.command.clone()),
        ("cases_of_the_plan", run.cases.to_string()),
    ];
    for (name, value) in facts {
        suite.add_property((name, value.as_str()));
    }
    for note in summary::notes(results) {
        suite.add_property(("note", note.as_str()));
    }
    let time = results
        .end
        .as_ref()
        .map(|end| Duration::try_from_secs_f64(end.wall_s));
    if let Some(Ok(time)) = time {
        suite.set_time(time);
    }
    let mut cases: Vec<&Case> = results.cases.iter().collect();
    cases.sort_by(|one, other| order::natural(&one.name, &other.name));
    suite.add_test_cases(cases.into_iter().map(test_case));
    let mut report = Report::new(run.plan.as_str());
    report.add_test_suite(suite);
    report.to_string()
}

fn test_case(case: &Case) -> TestCase {
    let mut test = TestCase::new(case.name.as_str(), status(case));
    test.set_classname(format!("{}.{}.{}", case.guest, case.error, case.moment));
    test.set_time(Duration::from_millis(case.wall_ms));
    test.add_property(("class", case.class.name()));
    if let Some(syndrome) = &case.syndrome {
        test.add_property(("syndrome", syndrome.as_str()));
    }
    test.add_property(("command", case.command.as_str()));
    if !case.console.is_empty() {
        test.set_system_out(case.console.join("\n"));
    }
    test
}

fn status(case: &Case) -> TestCaseStatus {
    let kind = match (case.class, case.ok) {
        (Class::Inconclusive, _) => NonSuccessKind::Error,
        (_, Some(true)) => return TestCaseStatus::success(),
        (_, Some(false)) | (Class::HypervisorFault, None) => NonSuccessKind::Failure,
        (_, None) => return TestCaseStatus::success(),
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(case.class.name());
    status.set_message(format!(
        "{}, expected: {}: {}",
        case.class.title(),
        summary::expectation(case),
        case.reason
    ));
    let evidence = case.evidence.iter().map(|seen| {
        let time = seen
            .t_ns
            .map_or_else(String::new, |t_ns| format!(" at {t_ns} ns"));
        format!("{}{time}: {}\n", seen.source.name(), seen.text)
    });
    status.set_description(format!(
        "{}to repeat it: {}\n",
        evidence.collect::<String>(),
        case.command
    ));
    status
}
