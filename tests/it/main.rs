//! Every integration test, in one program: real HTTP, a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access; // every scope against every route
mod bad_input; // hostile sizes and random bytes
mod clients; // real SDKs from their registries
mod counts; // exact to ten thousand with any filter
mod decoders; // our decoder against prost's
mod erasure; // projects that are deleted, with all that is theirs
mod fake_model;
mod faults; // kills, cuts, full disks: what is acknowledged is there
mod generations; // series that observations make
mod golden; // fixtures: wire bytes in, answers and rows out
mod harness; // a real server on a real database
mod hostile; // one project attacks, another notices nothing
mod instrumentations;
mod keys; // projects and keys, their scopes and their end
mod langfuse; // what Langfuse's clients write and read
mod langfuse_sdks; // every major version of Langfuse's SDKs
mod large_traces; // a request costs as much however large its trace is
mod limits; // rate limits and request ids
mod load; // every signal, sent without a pause and read back
mod logs; // log records, in and out
mod merging; // any order, any split, any repetition
mod metric_rows; // how points lie: late ones, damaged ones
mod metrics; // points in blocks, in chunks, and on the way
mod nebula; // a day of a GPU cluster
mod official; // answers against Langfuse's spec
mod openapi; // docs/openapi.yaml against the server
mod otlp_grpc; // OTLP over gRPC, frame by frame
mod otlp_http; // encodings, protocols, browsers, listeners
mod otlp_metrics; // nothing is lost; percentiles, growth
mod poison; // what Postgres refuses fails alone
mod privileges; // whom processes run as, whom data belongs to
mod process; // the program: command line, private Postgres, signals
mod retention; // old data goes, young data stays
mod routes; // every route, for tables that must leave none out
mod sdk; // this repository's own client
mod self_metrics; // what xtrace says of itself
mod soak; // load, attacks and kills together
mod startup; // what is said of databases that will not do, and exit codes
mod statements; // SQL, statement by statement
mod sums; // the same answers before and after changes are taken up
mod tenants; // credentials open their own project only
mod tidy; // rules of the house
mod transport; // a database over TCP and over a socket
mod usage; // sums are those of the rows, whatever came when
