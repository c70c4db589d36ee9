//! Pages of other sites: the Host, Origin and Sec-Fetch-Site headers.
