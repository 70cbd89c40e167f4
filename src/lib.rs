//! hivevpn
