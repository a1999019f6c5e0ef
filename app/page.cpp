#include "app/page.h"

#include <fmt/format.h>

#include "app/report_style.h"

namespace preceptor::app {

std::string document(const std::string& title, const std::string& body, const std::string& footer) {
  return fmt::format(
             "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
             "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n",
             title, kReportStyle) +
         body + "<footer>" + footer + "</footer>\n</main>\n</body>\n</html>\n";
}

std::string section(const std::string& heading, const std::string& body) {
  return "<section>\n<h2>" + heading + "</h2>\n" + body + "</section>\n";
}

std::string note(const std::string& text) { return "<p class=\"note\">" + text + "</p>\n"; }

std::string page_header(const std::string& kicker, const std::string& heading, const std::string& lead) {
  return "<header>\n<p class=\"kicker\">" + kicker + "</p>\n<h1>" + heading + "</h1>\n" + (lead.empty() ? "" : "<p class=\"lead\">" + lead + "</p>\n") +
         "</header>\n";
}

std::string facts(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string text = "<dl>\n";
  for (const auto& [term, what] : rows) text += "<dt>" + term + "</dt><dd>" + what + "</dd>\n";
  return text + "</dl>\n";
}

std::string figures(const std::string& caption, const std::vector<std::string>& heads, const std::vector<std::vector<std::string>>& rows) {
  std::string text = "<table class=\"cards\"><caption>" + caption + "</caption>\n<thead><tr>";
  for (const auto& head : heads) text += "<th scope=\"col\">" + head + "</th>";
  text += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows) {
    text += "<tr><th scope=\"row\">" + row[0] + "</th>";
    for (std::size_t i = 1; i < row.size(); ++i) text += "<td data-label=\"" + heads[i] + "\"><div>" + row[i] + "</div></td>";
    text += "</tr>\n";
  }
  return text + "</tbody></table>\n";
}

}  // namespace preceptor::app
