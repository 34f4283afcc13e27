//! Tables that the loader refuses to load into.

use anyhow::{Result, ensure};
use tap53_harness::{namespace::Namespace, postgres::Postgres, spark::Spark};

use super::stage::{namespace, records_schema, table};

/// Statements that the loader runs on its tables at the start.
const PREPARE: &str = "
import json, sys, warehouse
NAMED = {'long': 'bigint', 'bytes': 'binary'}
def spark_type(kind):
    if isinstance(kind, list):
        return spark_type(kind[1])
    if isinstance(kind, str):
        return NAMED.get(kind, kind)
    if 'logicalType' in kind:
        return 'timestamp'
    if kind['type'] == 'array':
        return 'array<' + str(spark_type(kind['items'])) + '>'
    NAMED[kind.get('name')] = {'fixed': 'binary', 'enum': 'string'}.get(kind['type'], 'struct<>')
    return NAMED[kind.get('name')]
with open(sys.argv[2], encoding='utf-8') as file:
    columns = {field['name']: spark_type(field['type']) for field in json.load(file)['fields']}
warehouse.prepare(sys.argv[1], [('dns_transactions', columns)])
";

#[test]
fn a_table_that_cannot_hold_the_records_is_refused_with_the_reason() -> Result<()> {
    let namespace = namespace()?;
    let (spark, warehouse) = (Spark::get()?, Postgres::start(&namespace)?);
    let refusal = || refusal(&spark, &namespace, &warehouse);
    let reason = refusal()?;
    ensure!(reason.contains("no table dns_transactions: create it with"), "{reason}");
    warehouse.execute(&table(&[])?)?;
    let reason = refusal()?;
    ensure!(reason.is_empty(), "{reason}");
    for (change, expected) in [
        ("ADD COLUMN other integer NOT NULL", "requires other, which the schema lacks"),
        ("DROP COLUMN other, DROP COLUMN anomalies", "lacks anomalies: add the columns"),
        (
            "ADD COLUMN anomalies text[], ALTER COLUMN qname TYPE bytea USING NULL, \
             ALTER COLUMN record_number TYPE integer",
            "record_number is integer, expected bigint; qname is bytea, expected text: change",
        ),
        (
            "ALTER COLUMN qname TYPE varchar, ALTER COLUMN record_number TYPE numeric, DROP CONSTRAINT dns_transactions_pkey, \
             ALTER COLUMN record_id DROP NOT NULL",
            "has no primary key",
        ),
    ] {
        warehouse.execute(&format!("ALTER TABLE dns_transactions {change}"))?;
        let reason = refusal()?;
        ensure!(reason.contains(expected), "{change}: {reason:?}");
    }
    Ok(())
}

/// The loader's reason; nothing where it takes the table.
fn refusal(spark: &Spark, namespace: &Namespace, warehouse: &Postgres<'_>) -> Result<String> {
    let mut loader = spark.python(namespace);
    let output =
        loader.args(["-c", PREPARE, &warehouse.conninfo()]).arg(records_schema()).output()?;
    let reason = String::from_utf8(output.stderr)?;
    ensure!(output.status.success() == reason.is_empty(), "{}: {reason}", output.status);
    Ok(reason)
}
