//! The examples at the end of `--help`.

pub(super) const PROGRAM: &str = "\
Examples:
  Show the connections at risk on this machine:
    keepalive-auditor audit
  Explain why, with the remedies that fit:
    keepalive-auditor audit --explain
  Print a remedy:
    keepalive-auditor remedy nginx
  Explain a word of the output, or a metric:
    keepalive-auditor explain overdue

Environment: each flag's variable is KEEPALIVE_AUDITOR_ and its name in upper case, with - and . as _
(--idle-timeout: KEEPALIVE_AUDITOR_IDLE_TIMEOUT). Flags win over the environment, the environment wins over the
configuration file.

Exit status: 0 done (with --fail-on: nothing found), 1 something failed, 2 wrong usage or configuration,
3 --fail-on found something, or --compare shows that a change did not take effect. Data goes to stdout, logs go to
stderr.";

pub(super) const MERGE: &str = "\
Examples:
  Merge the reports of two machines:
    ssh db-1 keepalive-auditor audit --format json >db-1.json
    ssh db-2 keepalive-auditor audit --format json >db-2.json
    keepalive-auditor merge db-1.json db-2.json
  Audit every node of a cluster (kubectl plugin, see docs/install.md):
    kubectl keepalive-auditor audit --all-nodes";

pub(super) const PROFILES: &str = "\
Examples:
  List the known middleboxes:
    keepalive-auditor profiles
  Judge by one of them:
    keepalive-auditor audit --profile aws-nlb
  Read the list in a script:
    keepalive-auditor profiles -o json | jq -r '.[].name'";

pub(super) const EXPLAIN: &str = "\
Examples:
  Explain a verdict, a column, a profile or a metric:
    keepalive-auditor explain overdue
    keepalive-auditor explain wire idle
    keepalive-auditor explain aws-nlb
  List every word:
    keepalive-auditor explain";

pub(super) const COMPLETIONS: &str = "\
Examples:
  Use them in this bash, and in every new one:
    source <(keepalive-auditor completions bash)
    keepalive-auditor completions bash >/etc/bash_completion.d/keepalive-auditor
  In zsh:
    keepalive-auditor completions zsh >\"${fpath[1]}/_keepalive-auditor\"";

pub(super) const MAN: &str = "\
Examples:
  Read it:
    keepalive-auditor man | man -l -
  Install it:
    keepalive-auditor man >/usr/local/share/man/man1/keepalive-auditor.1";
