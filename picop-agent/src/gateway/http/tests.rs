mod browser_like;
mod failures;
mod pooled;
mod scene;
mod streams;
mod strict;
mod tls_reload;
