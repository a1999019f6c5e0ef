#include "data/csv.h"

#include <gmock/gmock.h>

namespace preceptor::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Csv, ReadsPlainRows) {
  const auto table = parse_csv("file,label\na.png,0\nb.png,1\n");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_THAT(table->header, ElementsAre("file", "label"));
  ASSERT_EQ(table->rows.size(), 2u);
  EXPECT_THAT(table->rows[1].fields, ElementsAre("b.png", "1"));
  EXPECT_EQ(table->rows[1].line, 3u);
  EXPECT_EQ(table->column("label"), 1u);
  EXPECT_EQ(table->column("site"), std::nullopt);
}

TEST(Csv, ReadsQuotesCrlfByteOrderMarkAndNoLastNewline) {
  const auto table =
      parse_csv("\xef\xbb\xbf\"file\",label\r\n\r\n\"a, \"\"b\"\"\r\nc\",\r\n\"\",x");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->column("file"), 0u);
  ASSERT_EQ(table->rows.size(), 2u);
  EXPECT_THAT(table->rows[0].fields, ElementsAre("a, \"b\"\r\nc", ""));
  EXPECT_EQ(table->rows[0].line, 3u);
  EXPECT_THAT(table->rows[1].fields, ElementsAre("", "x"));
  EXPECT_EQ(table->rows[1].line, 5u);
}

TEST(Csv, NamesTheLineOfAMistakeAndNotItsContent) {
  const auto error = [](const char* text) {
    const auto table = parse_csv(text);
    return table ? std::string("no error") : table.error().message;
  };
  EXPECT_THAT(error(""), HasSubstr("no header"));
  EXPECT_THAT(error("\n\r\n"), HasSubstr("no header"));
  EXPECT_THAT(error("a,b,a\n"), HasSubstr("'a' stands twice"));
  EXPECT_THAT(error("a,b\n1\n"), HasSubstr("line 2: 1 fields, the header has 2"));
  EXPECT_THAT(error("a,b\n1,2\n1,2,3\n"), HasSubstr("line 3: 3 fields"));
  EXPECT_THAT(error("a,b\n1,\"Smith\n\n"), HasSubstr("line 2: a quote is not closed"));
  EXPECT_THAT(error("a,b\n1,Sm\"ith\n"), HasSubstr("line 2: a quote inside"));
  EXPECT_THAT(error("a,b\n1,\"Smith\"x\n"), HasSubstr("line 2: text after a closing quote"));
  EXPECT_THAT(error("a,b\n1,\"Smith\n\n"), testing::Not(HasSubstr("Smith")));
}

TEST(Csv, RefusesMoreThan256Columns) {
  EXPECT_TRUE(parse_csv(std::string("a") + "\n"));
  const auto table = parse_csv(std::string(100'000, ',') + "\n");
  ASSERT_FALSE(table);
  EXPECT_THAT(table.error().message, HasSubstr("over 256 columns"));
}

}  // namespace
}  // namespace preceptor::data
