#pragma once
#include <string>
#include <vector>

/// The frame of every page that the program writes: one HTML text without scripts or anything to fetch, and with a policy
/// in it that forbids both. Arguments are HTML; foreign texts come through html() first.
namespace preceptor::app {

std::string document(const std::string& title, const std::string& body, const std::string& footer);
std::string section(const std::string& heading, const std::string& body);
std::string note(const std::string& text);
/// kicker above, h1, and a lead paragraph; each may be empty but the heading.
std::string page_header(const std::string& kicker, const std::string& heading, const std::string& lead);
/// Terms and what they are, a line each.
std::string facts(const std::vector<std::pair<std::string, std::string>>& rows);
/// A small table of figures; the first cell of a row is its head.
std::string figures(const std::string& caption, const std::vector<std::string>& heads, const std::vector<std::vector<std::string>>& rows);

}  // namespace preceptor::app
